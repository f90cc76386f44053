"""A server that is sent bytes as they come: what it answers, and whether it still says the right text."""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

from steprnn.runtime import load

PATIENCE = 0.3  # seconds for an answer, which a request that lacks something does not get
LIMIT = 20.0  # seconds for one that lacks nothing


class Wire:
    """A server of its own process, on a port that was free."""

    def __init__(self, bundle: Path) -> None:
        command = [sys.executable, "-m", "steprnn.runtime", "serve", str(bundle), "--port", "0"]
        self._process = subprocess.Popen([*command, "--engine", "onnx"], stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        found = re.search(rb":(\d+)/v1", self._process.stderr.readline())
        assert found
        self._told: list[bytes] = []  # a pipe that nobody reads would stop the server
        threading.Thread(target=self._told.extend, args=(self._process.stderr,), daemon=True).start()
        self._port = int(found[1])
        model = load(bundle, engine="onnx")
        self._text = model.generate("分", 8, seed=1, temperature=1.0)[1:]
        asked = {"prompt": "分", "max_tokens": 8, "temperature": 1, "seed": 1}
        body = json.dumps(asked).encode()
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.request = head.encode() + body

    def tried(self, data: bytes, chance: random.Random) -> str:
        """What came of the bytes; now and then also of a request as it should be."""
        answer = self._answer(data, PATIENCE)
        if self._process.poll() is not None:
            return f"crash {self._process.returncode}"
        if chance.random() < 0.05:
            right = self._answer(self.request, LIMIT)
            if not right:
                return "hang"
            if json.loads(right.partition(b"\r\n\r\n")[2])["choices"][0]["text"] != self._text:
                return "wrong"
        if re.match(rb"HTTP/1.1 5", answer) or any(b"Traceback" in line for line in self._told):
            self._told.clear()
            return f"traceback {answer[:60]!r}"
        return "right" if answer.startswith(b"HTTP/1.1 2") else "refused"

    def _answer(self, data: bytes, patience: float) -> bytes:
        """All that comes back until the server hangs up, or nothing comes for so long."""
        parts: list[bytes] = []
        with socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT) as connection:
            try:
                connection.sendall(data)
                connection.settimeout(patience)
                while part := connection.recv(65536):
                    parts.append(part)
            except OSError:  # it hung up in the middle, or waits for more
                pass
        return b"".join(parts)

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait(30)
