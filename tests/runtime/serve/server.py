"""A server in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STEPRNN = str(Path(sys.executable).with_name("steprnn"))


class Server:
    """A server in a process of its own, on a port that was free."""

    def __init__(self, *argv: object, key: str | None = None) -> None:
        environment = os.environ | ({} if key is None else {"STEPRNN_API_KEY": key})
        command = [STEPRNN, "serve", *map(str, argv), "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, encoding="utf-8")
        assert self.process.stderr is not None
        self.told = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", self.told)
        assert found, self.told
        self.port = int(found[1])

    def client(self, key: str = "none", **options: Any) -> Any:
        import openai

        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=key, max_retries=0, timeout=60, **options
        )

    def request(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()

    def metric(self, name: str) -> float:
        text = self.request("GET", "/metrics")[2].decode()
        found = re.search(rf"^steprnn_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found, text
        return float(found[1])

    def stop(self) -> tuple[int, str]:
        """Exit code and the rest of stderr after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@contextlib.contextmanager
def stopping(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


def until_true(condition: Callable[[], bool]) -> None:
    """Ask a server again and again."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
