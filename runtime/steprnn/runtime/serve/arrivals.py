"""Arrivals: a crowd that connects at once is taken in at once, and opened in turn.

asyncio and uvicorn make a connection of each socket in the order they come, which takes long: who asked how
the server is waited behind thousands. Here a socket costs an `accept` and a look at what it begins with until
its turn comes, and that question has the next one.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import uvicorn

from . import connection
from .connection import Door

URGENT = (b"GET /health", b"GET /metrics")
AT_ONCE = 256  # sockets that are taken before anybody else has the loop
IN_TURN = 16  # of them that are opened then
PAUSE = 1.0  # seconds without a socket more, where the system has no files left


class Silent:
    """A socket that was taken in and has said nothing yet."""

    def __init__(self, client: socket.socket, arrivals: Arrivals) -> None:
        self.client = client
        self._arrivals = arrivals

    def leave(self) -> None:
        """Hang up."""
        self._arrivals.forget(self)
        self.client.close()


class Arrivals:
    """The listener, and the sockets that are not opened yet: silent ones, and those whose turn will come."""

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], door: Door, opened: set[Any]
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._door = door
        self._opened = opened  # uvicorn's
        self._silent: dict[Silent, asyncio.TimerHandle] = {}
        self._waiting: deque[socket.socket] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Take nobody in any more, and hang up on who is not opened."""
        self._loop.remove_reader(self._listener)
        for silent in list(self._silent):
            silent.leave()
        while self._waiting:
            self._waiting.popleft().close()

    async def wait_closed(self) -> None:
        """Wait for those that are being opened."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:  # else it was closed meanwhile
            self._loop.add_reader(self._listener, self._take)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no file is left
                self._loop.remove_reader(self._listener)
                self._loop.call_later(PAUSE, self._listen)
                return
            client.setblocking(False)
            silent = Silent(client, self)
            self._silent[silent] = self._loop.call_later(connection.IDLE_SECONDS, silent.leave)
            self._door.idle[silent] = None
            self._loop.add_reader(client, self._look, silent)
            if len(self._silent) + len(self._waiting) + len(self._opened) > self._door.most:
                self._door.make_room()

    def forget(self, silent: Silent) -> None:
        """It has said something, or is hung up on."""
        self._loop.remove_reader(silent.client)
        self._silent.pop(silent).cancel()
        del self._door.idle[silent]

    def _look(self, silent: Silent) -> None:
        self.forget(silent)
        client = silent.client
        try:
            begin = client.recv(len(URGENT[1]), socket.MSG_PEEK)
        except OSError:
            begin = b""
        if not begin:  # it is gone
            client.close()
        elif begin.startswith(URGENT):
            self._open(client)
        else:
            self._waiting.append(client)
            if len(self._waiting) == 1:
                self._loop.call_soon(self._open_some)

    def _open_some(self) -> None:
        for _ in range(min(IN_TURN, len(self._waiting))):
            self._open(self._waiting.popleft())
        if self._waiting:
            self._loop.call_soon(self._open_some)

    def _open(self, client: socket.socket) -> None:
        task = self._loop.create_task(self._opened_by(client))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _opened_by(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client)
        except OSError:  # it hung up meanwhile
            client.close()


class Server(uvicorn.Server):
    """uvicorn's server, whose connections come by way of `Arrivals`."""

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen on the sockets."""
        if sys.platform == "win32":  # whose event loop tells of no socket that can be read
            await super().startup(sockets)
            return
        await super().startup([])
        state, application = self.server_state, self.lifespan.state
        kind: Any = self.config.http_protocol_class

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = kind(config=self.config, server_state=state, app_state=application)
            return made

        listening: Any = [Arrivals(s, protocol, self._door, state.connections) for s in sockets or ()]
        self.servers = listening
