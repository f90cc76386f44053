"""Connections: those who keep the server waiting are hung up on, and idle ones make room for others.

uvicorn has a timeout between two requests alone, which any byte puts off, and a limit of its own counts open
sockets: some hundred that say nothing take a server down.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Protocol

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .gate import Gate

REQUEST_SECONDS = 10.0  # for the head of a request to come, once it has begun
IDLE_SECONDS = 75.0  # between two requests: longer than anybody is told to wait before the next
READ_SECONDS = 30.0  # for a client to read what fills its socket
FILES = 128  # that are no connections: the engine, the page, the interpreter


class Idle(Protocol):
    """Who may be hung up on to make room."""

    def leave(self) -> None:
        """Hang up."""


class Door:
    """The connections that no request is under way on, the one that has been so for longest first."""

    def __init__(self, gate: Gate, most: int) -> None:
        self.gate = gate
        self.most = most  # connections that are open at once
        self.idle: dict[Idle, None] = {}

    def make_room(self) -> None:
        """Hang up on the one that has been idle for longest."""
        next(iter(self.idle)).leave()


class Corked:
    """A transport whose writes in one turn of the loop go out together: each is a call of the system."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, before the loop waits for anything."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)

    def close(self) -> None:
        """Send what is held, and hang up."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))


class Connection(H11Protocol):
    """A connection of uvicorn's; the application finds it in its state as `connection`."""

    def __init__(self, door: Door, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._door = door
        self._seconds: float | None = 0.0  # that it waits for a request; None: there is one
        self._waiting: asyncio.TimerHandle | None = None  # for a request
        self._writing: asyncio.TimerHandle | None = None  # for the client to read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Come in; where there are too many, the one that has been idle for longest goes."""
        super().connection_made(Corked(transport, self.loop))  # type: ignore[arg-type]
        self.app_state = self.app_state | {"connection": self}
        self._look()
        if len(self.connections) > self._door.most:
            self._door.make_room()

    @property
    def takes_parts(self) -> bool:
        """Whether `send_part` can be called: the client reads, and knows of chunks."""
        cycle = self.cycle
        under_way = cycle is not None and cycle.response_started and not cycle.response_complete
        return under_way and not self.flow.write_paused and self.scope["http_version"] == "1.1"

    def send_part(self, part: bytes) -> None:
        """Send a part of an answer without a length that is under way; not the last.

        It is what `send` of the application comes to, by way of ten functions.
        """
        if not self.transport.is_closing():
            self.transport.write(b"%x\r\n%b\r\n" % (len(part), part))

    def leave(self) -> None:
        """Hang up."""
        self._door.idle.pop(self, None)  # not twice, where several come before it is closed
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        self._door.idle.pop(self, None)
        for timer in (self._waiting, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came; for a text that there is no room for, that is all."""
        if self._seconds == IDLE_SECONDS and (refusal := self._door.gate.refusal(data)):
            self._unset_keepalive_if_required()
            self.transport.write(refusal)
            self._seconds = 0.0  # it begins to wait anew
        else:
            super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """The response is out."""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._writing = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _look(self) -> None:
        """Wait for a request, or for the rest of one that has begun, or for nothing while there is one."""
        idle = self.cycle is None or self.cycle.response_complete
        seconds = (REQUEST_SECONDS if self.conn.trailing_data[0] else IDLE_SECONDS) if idle else None
        if seconds == self._seconds:  # whoever sends a byte now and then gains nothing
            return
        self._seconds = seconds
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self._door.idle.pop(self, None)
        if seconds is not None and not self.transport.is_closing():
            self._door.idle[self] = None
            self._waiting = self.loop.call_later(seconds, self.transport.abort)


def configured(app: Any, door: Door, grace: int) -> uvicorn.Config:
    """uvicorn's settings for an application; `grace` is the seconds for answers that are under way."""
    protocol: Any = partial(Connection, door)
    return uvicorn.Config(
        app,
        http=protocol,
        log_config=None,  # uvicorn's own closes the log handlers of whoever calls this in their process
        access_log=False,
        log_level="warning",
        ws="none",
        server_header=False,
        timeout_keep_alive=int(IDLE_SECONDS) + 1,  # its own timer, which any byte puts off
        timeout_graceful_shutdown=grace,
    )


def most_connections() -> int:
    """As many as this process may have files open, once it may have as many as it can."""
    try:
        import resource  # Windows has none
    except ImportError:
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(min(hard, 2**16) - FILES, 64) if hard > 0 else 2**16
