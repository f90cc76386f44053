"""Many clients, idle ones, slow ones and greedy ones: who has room is served, the rest is told at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import Model, Sampling
from steprnn.runtime.sampling.sampler import Sampler
from steprnn.runtime.serve import app, arrivals, connection, scheduler
from steprnn.runtime.serve.app import Service
from steprnn.runtime.serve.batch import Batch
from steprnn.runtime.serve.connection import Door, configured
from steprnn.runtime.serve.gate import MOST_SECONDS, Gate
from steprnn.runtime.serve.metrics import Metrics
from steprnn.runtime.serve.protocol import Limits
from steprnn.runtime.serve.row import Piece, Row, Task
from steprnn.runtime.serve.scheduler import Scheduler

from .server import Server, stopping, until_true

HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def posted(**asked: Any) -> bytes:
    body = json.dumps({"prompt": "分", "max_tokens": 3} | asked).encode()
    return f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body


def opened(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def status(client: socket.socket, request: bytes) -> int:
    """Of the answer to a request; its body is read to the end."""
    client.sendall(request)
    answer = client.makefile("rb")
    first = answer.readline()
    length = 0
    while (line := answer.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    answer.read(length)
    return int(first.split()[1])


GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Inside:
    """A server in a thread of this process, so that a test may change how long it waits."""

    def __init__(self, service: Service, most: int = 1000) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # soon full, where nobody reads
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.port = listener.getsockname()[1]
        self.asked: list[str] = []  # paths, as they come to the application
        served = service.app()

        async def noted(scope: Any, receive: Any, send: Any) -> None:
            self.asked.append(scope.get("path", ""))
            await served(scope, receive, send)

        self.door = Door(service.gate, most)
        self.server = arrivals.Server(configured(noted, self.door, grace=0), self.door)
        self.server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})

    def __enter__(self) -> Inside:
        self.thread.start()
        return self

    def __exit__(self, *failed: object) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def service(models: dict[str, Model]) -> Service:
    return Service(models["litert"], "tiny", Limits(tokens=10**7), batch=2, queue=1)


# Connections


def test_idle_connections_cost_nobody_anything(tiny: Path) -> None:
    """More of them than there are places and than may wait."""
    with stopping(Server(tiny, "--batch", 2, "--queue", 2)) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(opened(server.port)) for _ in range(400)]
        for client in idle[::2]:
            client.sendall(b"POST /v1/comp")  # and one that is never finished
        assert server.request("POST", "/v1/completions", b'{"prompt": "\xe5\x88\x86"}')[0] == 200
        assert server.request("GET", "/health")[0] == 200
        assert server.request("GET", "/metrics")[0] == 200
        assert server.stop() == (0, "")


@pytest.mark.parametrize("begun", [b"", b"G", HEAD.encode()])
def test_who_does_not_ask_is_hung_up_on(
    service: Service, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(connection, "IDLE_SECONDS", 60.0 if begun else 0.3)
    with Inside(service) as inside, opened(inside.port) as client:
        client.sendall(begun)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        until_true(lambda: not inside.door.idle)


def test_who_asks_how_the_server_is_does_not_wait_behind_a_crowd(service: Service) -> None:
    models = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    held, loops = threading.Event(), []

    def hold() -> None:
        loops.append(asyncio.get_running_loop())
        held.wait(60)

    with Inside(service) as inside, contextlib.ExitStack() as stack:
        until_true(lambda: inside.server.started)
        first = stack.enter_context(opened(inside.port))
        assert status(first, GET) == 200
        inside.door.gate.scheduler._loop.call_soon_threadsafe(hold)  # so that all of them are there at once
        until_true(lambda: bool(loops))
        crowd = [stack.enter_context(opened(inside.port)) for _ in range(100)]
        for client in crowd:
            client.sendall(models)
        last = stack.enter_context(opened(inside.port))
        last.sendall(GET)
        held.set()
        assert status(last, b"") == 200
        assert [status(client, b"") for client in crowd] == [200] * 100
        requests = [path for path in inside.asked if path]
        assert len(requests) == 102
        assert requests[1:].index("/health") < 50


def test_a_byte_now_and_then_gains_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.5)
    with Inside(service) as inside, opened(inside.port) as client:
        client.settimeout(0.05)
        sent = 0
        with contextlib.suppress(OSError):
            for byte in b"GET /health HTTP/1.1\r\nX: " + b"x" * 1000:
                client.sendall(bytes([byte]))
                sent += 1
                with contextlib.suppress(TimeoutError):
                    if client.recv(1) == b"":
                        break
        assert sent < 100


def test_a_connection_is_kept_between_requests(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the head of each has its own time."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 60.0)
    with Inside(service) as inside, opened(inside.port) as client:
        for request in (GET, posted(), GET, posted(), GET):
            client.sendall(request[:20])
            assert status(client, request[20:]) == 200
        until_true(lambda: len(inside.door.idle) == 1)


def test_the_connection_that_is_idle_for_longest_makes_room(service: Service) -> None:
    with Inside(service, most=3) as inside, contextlib.ExitStack() as stack:
        busy, first, second = (stack.enter_context(opened(inside.port)) for _ in range(3))
        busy.sendall(posted(max_tokens=10**7, stream=True))
        assert busy.recv(1) == b"H"
        assert status(first, GET) == 200  # so that it is idle for less than the second
        until_true(lambda: len(inside.door.idle) == 2)
        with opened(inside.port) as third:
            assert status(third, GET) == 200
            with contextlib.suppress(ConnectionResetError):
                assert second.recv(1) == b""
            assert status(first, GET) == 200
            assert busy.recv(1)


def test_who_hangs_up_within_a_body_is_no_traceback(tiny: Path) -> None:
    """Some hundred of them filled the pipe of a server whose log nobody reads, and it stood still."""
    server = Server(tiny, "--engine", "onnx")
    with stopping(server):
        for _ in range(20):
            with contextlib.closing(opened(server.port)) as client:
                client.sendall(posted()[:-5])
        until_true(lambda: 'code="400"} 20' in server.request("GET", "/metrics")[2].decode())
        code, told = server.stop()
    assert (code, told) == (0, "")


def test_a_body_that_does_not_come_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)
    with Inside(service) as inside, opened(inside.port) as client:
        assert status(client, posted()[:-5]) == 408
        with opened(inside.port) as another:
            assert status(another, posted(max_tokens=2)) == 200


def test_who_does_not_read_is_hung_up_on(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.3)
    with Inside(service) as inside, opened(inside.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(posted(max_tokens=10**7, stream=True))
        assert client.recv(1) == b"H"
        until_true(lambda: service.metrics.rows_active == 1)
        until_true(lambda: service.metrics.rows_active == 0)
        assert service.metrics.rows_cancelled == 1


# Room


def test_a_client_has_a_limit_and_loopback_has_none(models: dict[str, Model]) -> None:
    service = Service(models["litert"], "tiny", batch=8, queue=8, per_client=3)

    app = service.app()
    app.state.scheduler = service.gate.scheduler

    async def ask(client: str, n: int) -> tuple[int, dict[bytes, bytes], dict[str, Any]]:
        """Status, headers and body of an answer of the application to this address."""
        sent: list[Any] = []
        body = json.dumps({"prompt": "分", "max_tokens": 2, "n": n}).encode()
        whole: asyncio.Queue[Any] = asyncio.Queue()
        whole.put_nowait({"type": "http.request", "body": body, "more_body": False})

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b""}
        scope |= {"headers": [(b"content-type", b"application/json")], "client": (client, 1)}
        await app(scope, whole.get, send)
        content = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], dict(sent[0]["headers"]), json.loads(content)

    async def everyone() -> None:
        service.gate.scheduler.start(asyncio.get_running_loop())
        try:
            assert (await ask("10.0.0.9", 3))[0] == 200
            assert (await ask("10.0.0.9", 3))[0] == 200, "those that are done are not counted"
            service.clients["10.0.0.9"] = 1
            refused, headers, answer = await ask("10.0.0.9", 3)
            assert (refused, headers[b"retry-after"]) == (429, b"1")
            assert answer["error"]["message"] == (
                "1 texts of 10.0.0.9 are under way, and one address may have 3; wait for some"
            )
            assert (await ask("10.0.0.8", 3))[0] == 200
            assert (await ask("127.0.0.1", 4))[0] == 200
            assert dict(service.clients) == {"10.0.0.9": 1}
        finally:
            service.gate.scheduler.stop()

    asyncio.run(everyone())


@pytest.fixture
def full_gate(models: dict[str, Model]) -> Gate:
    """Of a scheduler that was not started, with both places and the one beside them taken."""
    held = Scheduler(models["litert"], Metrics(), batch=2, queue=1)
    held.submit([row(models["litert"], "分", 5, i) for i in range(3)])
    return Gate(held, Metrics())


def row(model: Model, prompt: str, length: int, seed: int, deliver: Callable[[Piece], None] = id) -> Row:  # type: ignore[assignment]
    assert model.vocabulary is not None
    tokens = model.vocabulary.encode(prompt)
    task = Task(tokens, length, streamed=False)
    return Row(task, model.vocabulary, Sampler(Sampling(temperature=1.0), seed, tokens), deliver)


def test_the_refusal_is_an_answer_of_http(full_gate: Gate) -> None:
    answer = full_gate.refusal(posted())
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["message"] == "the queue is full, with 3 texts waiting; try again"
    assert full_gate._metrics.answers == {429: 1}


@pytest.mark.parametrize(
    "request_",
    [
        GET,
        posted()[:-1],
        posted() + b"x",
        posted().replace(b"Host", b"Connection: close\r\nHost"),
        posted().replace(b"Host", b"Origin: http://evil.example\r\nHost"),
        posted().replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"),
        posted().replace(b"Host", b"Content-Length: 1\r\nHost"),
        posted().replace(b"Content-Length", b"X-Length"),
        posted().replace(b"completions", b"chat/completions"),
    ],
)
def test_what_is_not_plainly_a_request_for_a_text_goes_the_whole_way(
    full_gate: Gate, request_: bytes
) -> None:
    assert full_gate.refusal(request_) is None


def test_each_is_told_a_time_of_its_own_to_come_again(full_gate: Gate) -> None:
    full_gate.scheduler.rate = 20.0
    told = [int(full_gate.error().headers["Retry-After"]) for _ in range(1000)]
    assert told[0] == 1
    assert told == sorted(told)
    assert told.count(2) == 10, "half as many a second as are done in one"
    assert told[-1] == MOST_SECONDS


def test_a_queue_that_is_full_is_told_on_the_same_connection(service: Service) -> None:
    with Inside(service) as inside, contextlib.ExitStack() as stack:
        busy = stack.enter_context(opened(inside.port))
        busy.sendall(posted(max_tokens=10**7, n=2))
        until_true(lambda: service.metrics.rows_active == 2)
        waiting = stack.enter_context(opened(inside.port))
        waiting.sendall(posted(max_tokens=10**7))
        until_true(lambda: service.metrics.rows_waiting == 1)
        with opened(inside.port) as client:
            strange = posted().replace(b"Content-Length", b"Content-length:  ").replace(b":  :", b":  ")
            assert [status(client, request) for request in (posted(), strange, GET, posted())] == [
                429,
                429,
                200,
                429,
            ]
            busy.close()
            until_true(lambda: service.metrics.rows_waiting == 0)
            assert status(client, posted()) == 200
        assert service.metrics.answers[429] == 3


# Turns


def test_a_row_that_rests_goes_on_where_it_was(model: Model) -> None:
    """In any batch, at any step: also while its prompt is read."""
    batch = Batch(model, 4)
    prompts = ["分开云不走", "雨", "山上夜风", "月不在"]
    rows = [row(model, prompt, 40, seed) for seed, prompt in enumerate(prompts)]
    batch.join(rows[:3])
    resting: list[Row] = []
    for step in range(400):
        if step % 3 == 2 and batch.rows:
            tired = batch.rows[step % len(batch.rows)]
            batch.rest([tired])
            resting.append(tired)
        if step == 5:
            batch.join(rows[3:])
        elif step % 5 == 4 and resting:
            batch.join([resting.pop(0)])
        batch.step()
    for seed, (one, prompt) in enumerate(zip(rows, prompts, strict=True)):
        expected = model.generate(prompt, 40, seed=seed, temperature=1.0).removeprefix(prompt)
        assert one.piece() == Piece(expected, [], "length")


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "TURN", 16)
    monkeypatch.setattr(scheduler, "BETWEEN_TURNS", 4)


@pytest.mark.usefixtures("short_turns")
def test_a_short_text_does_not_wait_for_long_ones(models: dict[str, Model]) -> None:
    """Every place is taken by a text that would go on for minutes, or by a long prompt."""
    model = models["litert"]

    async def ask() -> list[Piece]:
        taken = Scheduler(model, Metrics(), batch=2, queue=8)
        taken.start(asyncio.get_running_loop())
        pieces: asyncio.Queue[Piece] = asyncio.Queue()
        long = [row(model, "分" * 10_000, 10**7, 0), row(model, "分", 10**7, 1)]
        taken.submit(long)
        taken.submit([row(model, "雨", 50, seed, pieces.put_nowait) for seed in range(4)])
        try:
            return [await asyncio.wait_for(pieces.get(), 60) for _ in range(4)]
        finally:
            taken.stop()

    expected = {model.generate("雨", 50, seed=seed, temperature=1.0)[1:] for seed in range(4)}
    assert {piece.text for piece in asyncio.run(ask())} == expected


@pytest.mark.usefixtures("short_turns")
def test_many_texts_take_turns_and_each_is_right(models: dict[str, Model]) -> None:
    model = models["litert"]
    lengths = [20 + 29 * seed % 200 for seed in range(30)]

    async def ask() -> dict[int, str]:
        crowded = Scheduler(model, Metrics(), batch=4, queue=40)
        crowded.start(asyncio.get_running_loop())
        texts = dict.fromkeys(range(30), "")
        done: asyncio.Queue[int] = asyncio.Queue()

        def deliver(seed: int, piece: Piece) -> None:
            texts[seed] += piece.text
            if piece.finish:
                done.put_nowait(seed)

        crowded.submit(
            [row(model, "分开", n, s, lambda piece, s=s: deliver(s, piece)) for s, n in enumerate(lengths)]
        )
        for _ in lengths:
            await asyncio.wait_for(done.get(), 60)
        crowded.stop()
        assert crowded._batch.steps > 0
        return texts

    texts = asyncio.run(ask())
    for seed, length in enumerate(lengths):
        assert "分开" + texts[seed] == model.generate("分开", length, seed=seed, temperature=1.0)
