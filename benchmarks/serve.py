"""`steprnn serve` under load, side by side: `python benchmarks/serve.py BUNDLE`.

Five contenders take turns, so that what else the machine does hits all alike:

plain       `model.stream` behind Starlette's StreamingResponse, as one writes it in ten lines: one text at
            a time, each token an event of its own
one client  `steprnn serve`, and one client that asks for one text after the other
N clients   `steprnn serve`, and N that do so at once
N whole     the same without streams: each answer is one object at the end
generate    no server: `model.generate` of the same texts, N at a time

Server and clients share the machine and talk over loopback. The clock runs from the first request of a
round until its last answer. Each answer is checked afterwards: it has all of its tokens, and the same
seed gave the same text to one client and to N (a draw that falls on a boundary may differ; it is counted).
The server's CPU time a token stands beside the rates: unlike them, it hardly depends on what else runs.
It is read from /proc, so this runs on Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from steprnn.runtime import Model, load
from steprnn.runtime.markdown import table

Cpu = Callable[[], float]  # seconds that a process has used

END = b"0\r\n\r\n"  # of a chunked body
LENGTH = re.compile(rb"content-length: (\d+)")


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=250, help="of each text")
    parser.add_argument("--texts", type=int, default=4, help="of each client in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--variant", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)  # be the plain server
    arguments = parser.parse_args()
    if arguments.plain:
        serve_plainly(opened(arguments))
        return 0
    return measure(arguments)


def opened(arguments: argparse.Namespace) -> Model:
    """The model, as all contenders have it."""
    return load(
        arguments.bundle, engine=arguments.engine, variant=arguments.variant, threads=arguments.threads
    )


def measure(arguments: argparse.Namespace) -> int:
    """Rounds of the five in turn."""
    model = opened(arguments)
    assert model.vocabulary is not None
    characters = [c for c in model.vocabulary.tokens if c.isalnum()]
    count = arguments.clients * arguments.texts
    bodies = [
        {
            "prompt": "".join(characters[(seed * 7 + i) % len(characters)] for i in range(4)),
            "max_tokens": arguments.tokens,
            "temperature": arguments.temperature,
            "seed": seed,
            "stream": True,
        }
        for seed in range(count)
    ]
    alone = bodies[: max(count // 8, 1)]  # one client needs fewer for a round as long
    flags = [
        "--engine",
        arguments.engine,
        "--variant",
        arguments.variant,
        "--threads",
        str(arguments.threads),
    ]
    here = [sys.executable, __file__, str(arguments.bundle), "--plain", *flags]
    ours = [str(Path(sys.executable).with_name("steprnn")), "serve", str(arguments.bundle), "--port", "0"]
    ours += [*flags, "--batch", str(arguments.clients)]
    crowd = f"{arguments.clients} clients"
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}  # CPU seconds of the server, a token
    differing = compared = 0

    def add(
        name: str, asked: Sequence[Any], take: Callable[[], tuple[float, list[str]]], used: Cpu
    ) -> list[str]:
        """Take a turn; returns its texts."""
        before = used()
        seconds, texts = take()
        count = len(asked) * arguments.tokens
        costs.setdefault(name, []).append((used() - before) / count)
        rates.setdefault(name, []).append(count / seconds)
        if wrong := [len(text) for text in texts if len(text) != arguments.tokens]:
            raise SystemExit(f"{name}: answers of {wrong} characters, expected {arguments.tokens}")
        return texts

    with running(here) as (plain, plain_port), running(ours) as (server, port):
        whole = [body | {"stream": False} for body in bodies]
        for _ in range(arguments.rounds):
            add("plain", alone, lambda: ask(plain_port, alone, 1), lambda: cpu(plain))
            single = add("one client", alone, lambda: ask(port, alone, 1), lambda: cpu(server))
            texts = add(crowd, bodies, lambda: ask(port, bodies, arguments.clients), lambda: cpu(server))
            add(
                f"{arguments.clients} whole",
                whole,
                lambda: ask(port, whole, arguments.clients),
                lambda: cpu(server),
            )
            add("generate", bodies, lambda: called(model, bodies, arguments), time.process_time)
            compared += len(single)
            differing += sum(a != b for a, b in zip(single, texts, strict=False))
    sys.stdout.write(f"{model.engine} {model.artefact.variant}, texts of {arguments.tokens} tokens\n\n")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    rows = []
    for name, rate in medians.items():
        ratios = (f"{rate / medians[other]:.1f}" for other in ("plain", "one client"))
        shares = (cost / call for cost, call in zip(costs[name], costs["generate"], strict=True))
        spent = [f"{statistics.median(costs[name]) * 1e6:.1f}", f"{statistics.median(shares):.2f}"]
        rows.append([name, f"{rate:,.0f}", *ratios, *spent])
    head = ["", "tokens/s", "of plain", "of one client", "CPU us a token", "of generate"]
    sys.stdout.write("\n".join(table(head, rows)) + "\n")
    sys.stdout.write(f"\n{compared - differing} of {compared} texts are the same to one client and to all\n")
    return 0


def called(
    model: Model, bodies: Sequence[dict[str, Any]], arguments: argparse.Namespace
) -> tuple[float, list[str]]:
    """Seconds that `generate` took for the same texts, and what it wrote; body i has the seed i."""
    began, texts = time.perf_counter(), []
    for i in range(0, len(bodies), arguments.clients):
        prompts = [body["prompt"] for body in bodies[i : i + arguments.clients]]
        made = model.generate(prompts, arguments.tokens, temperature=arguments.temperature, seed=i)
        texts += [text[len(prompt) :] for prompt, text in zip(prompts, made, strict=True)]
    return time.perf_counter() - began, texts


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[tuple[int, int]]:
    """A server in a process of its own; yields its process id, and the port that it tells on stderr."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as server:
        try:
            assert server.stderr is not None
            for line in server.stderr:
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    yield server.pid, int(found[1])
                    break
            else:
                raise SystemExit(f"`{' '.join(command)}` did not start")
        finally:
            server.terminate()


def cpu(process: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(port: int, bodies: Sequence[dict[str, Any]], clients: int) -> tuple[float, list[str]]:
    """Seconds that all bodies took over this many connections, and their texts, in order.

    A bare selector loop, which keeps what arrives and reads it when the clock has stopped: the clients
    are to take as little as they can of the cores they share with the server.
    """
    requests = [request(port, body) for body in bodies]
    answers = [bytearray() for _ in bodies]
    waiting = iter(range(len(bodies)))
    left = len(bodies)
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(clients)
        ]
        began = time.perf_counter()
        for connection in connections:
            number = next(waiting)
            selector.register(connection, selectors.EVENT_READ, number)
            connection.sendall(requests[number])
        while left:
            for key, _ in selector.select(60):
                connection, number = key.fileobj, key.data
                assert isinstance(connection, socket.socket)
                data = connection.recv(1 << 16)
                if not data:
                    raise SystemExit(f"the server hung up: {answers[number][:300]!r}")
                answers[number] += data
                if is_whole(answers[number]):
                    left -= 1
                    if (following := next(waiting, None)) is not None:
                        selector.modify(connection, selectors.EVENT_READ, following)
                        connection.sendall(requests[following])
        seconds = time.perf_counter() - began
    return seconds, [text(bytes(answer)) for answer in answers]


def request(port: int, body: dict[str, Any]) -> bytes:
    """A whole HTTP request."""
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def is_whole(answer: bytes) -> bool:
    """Whether all of an answer is there."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    return len(body) == int(length[1]) if length else body.endswith(END)


def text(answer: bytes) -> str:
    """The text of an answer, which is one object or chunks of events."""
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"the server refused: {answer[:300]!r}")
    if LENGTH.search(head := answer.partition(b"\r\n\r\n")[0]):
        return str(json.loads(answer[len(head) :])["choices"][0]["text"])
    events = re.findall(rb"^data: (\{.*\})\r?$", answer, re.MULTILINE)
    return "".join(json.loads(event)["choices"][0]["text"] for event in events)


def serve_plainly(model: Model) -> None:
    """Serve one text at a time, each token as an event of its own."""
    import threading

    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    turn = threading.Lock()

    async def completions(request: Request) -> Response:
        asked = json.loads(await request.body())

        def pieces() -> Iterator[str]:
            options = {"temperature": asked["temperature"], "seed": asked["seed"]}
            with turn:
                for piece in model.stream(asked["prompt"], asked["max_tokens"], **options):
                    choice = {"index": 0, "text": piece, "logprobs": None, "finish_reason": None}
                    chunk = {"id": "cmpl-0", "object": "text_completion", "choices": [choice]}
                    yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    listener = socket.create_server(("127.0.0.1", 0))
    sys.stderr.write(f"at http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stderr.flush()
    app = Starlette(routes=[Route("/v1/completions", completions, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
