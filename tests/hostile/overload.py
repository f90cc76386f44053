"""More clients than a server has room for: `python tests/hostile/overload.py BUNDLE`.

Each client asks for one seeded text after the other, waits as long as `Retry-After` says where it is told
to, and compares what it gets with the text that the seed gives alone. Some hang up in the middle of a stream,
and some read theirs slowly. Goodput is right texts a second of
the server's CPU time, which hardly depends on what else runs; the rate stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from steprnn.runtime import load

SEEDS = 200  # different texts that are asked for
LEAVING, SLOW = 0.05, 0.05  # the share of requests that are hung up on, and whose stream is read slowly
PAUSE = 0.1  # seconds between two reads of those
DOCTOR = """
import socket, sys, time
answers, slowest, end = 0, 0.0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60) as client:
        client.sendall(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200"), answer
    answers, slowest = answers + 1, max(slowest, time.monotonic() - began)
    time.sleep(0.2)
print(answers, slowest)
"""


@dataclass
class Seen:
    """What the clients of a round got."""

    right: int = 0
    wrong: int = 0
    left: int = 0  # streams that a client hung up on
    slow: int = 0  # streams that were read slowly, of those that are right or wrong
    answers: Counter[str] = field(default_factory=Counter)
    healthy: int = 0  # answers of /health
    slowest_health: float = 0.0  # seconds until the last of them to come
    server_seconds: float = 0.0  # of CPU


@contextmanager
def serving(bundle: Path, *flags: str) -> Iterator[tuple[int, int]]:
    """A server of its own process; its port and its number."""
    command = [sys.executable, "-m", "steprnn.runtime", "serve", str(bundle), "--port", "0", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        try:
            yield int(re.findall(r":(\d+)/v1", told)[0]), process.pid
        finally:
            process.terminate()
            process.communicate(timeout=60)


def expected_texts(bundle: Path, engine: str, tokens: int) -> tuple[str, list[str]]:
    """The prompt, and the text of each seed alone."""
    model = load(bundle, engine=engine)
    assert model.vocabulary is not None
    prompt = model.vocabulary.tokens[-1]
    texts = [model.generate(prompt, tokens, seed=s, temperature=1.0)[1:] for s in range(SEEDS)]
    return prompt, texts


def cpu_seconds(process: int) -> float:
    """What a process has used so far; 0 where there is no /proc."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def crowd(
    port: int, server: int, clients: int, seconds: float, prompt: str, texts: list[str], tokens: int
) -> Seen:
    """So many clients for so long, and half as long before that, which is not counted."""
    seen, begin = Seen(), time.monotonic() + seconds / 2
    end = begin + seconds
    chance = random.Random(0)

    async def client(number: int) -> None:
        reader = writer = None
        while time.monotonic() < end:
            seed = chance.randrange(SEEDS)
            how = chance.random()
            streams = how < LEAVING + SLOW
            asked = {
                "prompt": prompt,
                "max_tokens": tokens,
                "temperature": 1,
                "seed": seed,
                "stream": streams,
            }
            body = json.dumps(asked).encode()
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
                assert reader is not None
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                if how < LEAVING:
                    await reader.readuntil(b"\r\n\r\n")
                    await asyncio.sleep(chance.random() * PAUSE)
                    writer.transport.abort()
                    writer, seen.left = None, seen.left + 1
                    continue
                status, headers, answer = await read_answer(reader, PAUSE if streams else 0.0)
            except (OSError, asyncio.IncompleteReadError) as error:
                seen.answers[type(error).__name__] += 1
                writer = None
                await asyncio.sleep(0.5 + chance.random())
                continue
            seen.answers[status] += 1
            if status == "200":
                if begin < time.monotonic() < end:
                    right = (streamed(answer) if streams else text_of(answer)) == texts[seed]
                    seen.slow += streams
                    seen.right, seen.wrong = seen.right + right, seen.wrong + (not right)
            else:
                assert status == "429", (status, answer)
                await asyncio.sleep(float(headers["retry-after"]) + chance.random())
        if writer is not None:
            writer.close()

    async def watched() -> None:
        await asyncio.sleep(begin - time.monotonic())
        used = cpu_seconds(server)
        await asyncio.sleep(end - 0.6 - time.monotonic())
        seen.server_seconds = cpu_seconds(server) - used

    # In a process of its own: this one's loop has thousands of clients to attend to.
    doctor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DOCTOR, str(port), str(seconds * 1.5 - 0.6), stdout=subprocess.PIPE
    )
    everyone = [asyncio.create_task(client(i)) for i in range(clients)]
    await watched()
    told, _ = await doctor.communicate()
    seen.healthy, seen.slowest_health = int(told.split()[0]), float(told.split()[1])
    await asyncio.wait(everyone, timeout=max(end + 1 - time.monotonic(), 0))
    for task in everyone:
        task.cancel()
    await asyncio.gather(*everyone, return_exceptions=True)
    return seen


def text_of(answer: bytes) -> str:
    """The text of a whole answer, or of an event."""
    return str(json.loads(answer)["choices"][0]["text"])


def streamed(answer: bytes) -> str:
    """The text of the events of a stream."""
    events = [line.removeprefix(b"data: ") for line in answer.split(b"\n") if line.startswith(b"data: {")]
    return "".join(map(text_of, events))


async def read_answer(reader: asyncio.StreamReader, pause: float = 0) -> tuple[str, dict[str, str], bytes]:
    """Status, headers and body of a response with a length or in chunks, each of which is waited for."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" in headers:
        return first.split()[1], headers, await reader.readexactly(int(headers["content-length"]))
    parts = []
    while size := int((await reader.readline()), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
        await asyncio.sleep(pause)
    await reader.readexactly(2)
    return first.split()[1], headers, b"".join(parts)


def main() -> int:
    """Rounds of more and more clients; 1 where a text was wrong or goodput fell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, nargs="*", default=[64, 320, 3200])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--engine", default="litert")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    prompt, texts = expected_texts(arguments.bundle, arguments.engine, arguments.tokens)
    rates, wrong = [], 0
    with serving(arguments.bundle, "--engine", arguments.engine) as (port, number):
        for clients in arguments.clients:
            run = crowd(port, number, clients, arguments.seconds, prompt, texts, arguments.tokens)
            seen = asyncio.run(run)
            rates.append(seen.right / seen.server_seconds)
            wrong += seen.wrong
            sys.stdout.write(
                f"{clients:6} clients: {seen.right / arguments.seconds:7.1f} right texts a second, "
                f"{rates[-1]:7.1f} a second of the server's CPU, {seen.wrong} wrong, "
                f"{seen.right + seen.wrong} compared, "
                f"{seen.left} hung up, {seen.slow} read slowly, "
                f"{dict(seen.answers)}, {seen.healthy} /health within {seen.slowest_health:.2f} s\n"
            )
            sys.stdout.flush()
    kept = rates[-1] / max(rates)
    sys.stdout.write(f"goodput with {arguments.clients[-1]} clients is {kept:.0%} of the best\n")
    return 0 if kept >= 0.9 and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
