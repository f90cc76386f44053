"""The application: its routes, who may ask, and how much."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import UsageError
from ..model import Model
from .answer import Answer
from .errors import ApiError, refusal
from .gate import COMPLETIONS, Gate
from .guard import Guard, is_loopback
from .metrics import Metrics
from .protocol import CompletionRequest, Limits, parse
from .scheduler import QueueFull, Scheduler
from .sessions import NEW, Sessions, Turn

BODY_SECONDS = 10.0  # within which a body has to come
MOST_READ = 4  # times the limit, read and dropped: hung up on while it sends, a client sees no answer


@dataclass(frozen=True)
class Service:
    """A model, and how it is served."""

    model: Model
    name: str
    limits: Limits = field(default_factory=Limits)
    batch: int = 64  # rows that step together
    queue: int = 256  # rows that may wait for a place among them
    per_client: int = 80  # rows of one address; those of loopback may be a proxy's, or a test's
    key: str | None = None  # what clients have to know; None: nothing
    page: Path | None = None  # folder of static files for /
    origins: tuple[str, ...] = ()  # of web pages that may ask, beside the server's own
    sessions: Sessions | None = None  # where texts go on; None: nowhere
    hosts: tuple[str, ...] | None = None  # names of this server beside those of loopback; None: any
    metrics: Metrics = field(default_factory=Metrics)
    gate: Gate = field(init=False)
    clients: Counter[str] = field(default_factory=Counter)  # rows of each address
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        scheduler = Scheduler(self.model, self.metrics, batch=self.batch, queue=self.queue)
        object.__setattr__(self, "gate", Gate(scheduler, self.metrics))

    def app(self) -> Starlette:
        """The ASGI application; raises `UsageError` where the model writes no text."""
        if self.model.vocabulary is None or not self.model.manifest.writes_text:
            raise UsageError("the bundle has no vocabulary, so it completes no text; step it in Python")
        routes: list[BaseRoute] = [
            Route(COMPLETIONS, self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["GET", "POST"]),
            Route("/v1/sessions", self.all_sessions),
            Route("/v1/sessions/{name}", self.one_session, methods=["GET", "DELETE"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.one_model),
            Route("/health", self.health),
            Route("/metrics", self.prometheus),
        ]
        if self.page is not None:
            routes.append(Mount("/", StaticFiles(directory=self.page, html=True)))
        allowed = Middleware(
            CORSMiddleware,
            allow_origins=self.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", "X-Seed"],
        )
        return Starlette(
            routes=routes,
            middleware=[
                Middleware(Guard, origins=self.origins, hosts=self.hosts),
                *([allowed] if self.origins else []),
            ],
            lifespan=self.lifespan,
            exception_handlers={ApiError: _refuse, HTTPException: _refuse_route, Exception: _fail},
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Run the scheduler as long as the application is up."""
        scheduler = app.state.scheduler = self.gate.scheduler
        scheduler.start(asyncio.get_running_loop())
        yield
        scheduler.stop()
        if self.sessions is not None:
            self.sessions.close()

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        try:
            self._authorize(request)
            scheduler: Scheduler = request.app.state.scheduler
            body = await _body(request, self.limits.body)
            if scheduler.full:  # by now, and nothing was parsed yet
                raise self.gate.error()
            vocabulary = self.model.vocabulary
            assert vocabulary is not None
            asked = parse(body, self.name, vocabulary, self.limits)
            client = request.client.host if request.client else ""
            rows = len(asked.prompts) * asked.n
            if self.clients[client] + rows > self.per_client and not is_loopback(client):
                raise ApiError(
                    429,
                    f"{self.clients[client]} texts of {client} are under way, and one address may have "
                    f"{self.per_client}; wait for some",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": "1"},
                )
            turn = await self._turn(asked)
            try:
                answer = Answer(
                    self.name,
                    vocabulary,
                    asked,
                    scheduler,
                    self.metrics,
                    self.clients,
                    client,
                    request.scope.get("state", {}).get("connection"),
                    turn,
                )
            except BaseException as error:
                if turn is not None:
                    turn.release()
                if isinstance(error, QueueFull):
                    raise self.gate.error() from None
                raise
        except ApiError as error:
            self.metrics.answers[error.status] += 1
            raise
        return answer

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions, which many clients try first."""
        raise ApiError(
            404,
            f"{self.name!r} is no chat model: it goes on from a prompt; expected POST /v1/completions",
            param="model",
            code="not_a_chat_model",
        )

    async def all_sessions(self, request: Request) -> Response:
        """GET /v1/sessions, for who has the key: their ids are all that it takes to go on with them."""
        self._authorize(request)
        sessions = self._stored()
        if self.key is None:
            raise ApiError(
                403,
                "whoever knows the id of a session may go on with it, so that they are listed to nobody; "
                "start the server with a key in STEPRNN_API_KEY",
                code="no_key",
            )
        return JSONResponse({"object": "list", "data": sessions.all()})

    async def one_session(self, request: Request) -> Response:
        """GET or DELETE /v1/sessions/ID."""
        self._authorize(request)
        sessions, name = self._stored(), request.path_params["name"]
        if request.method == "DELETE":
            await sessions.delete(name)
            return JSONResponse({"id": name, "object": "session", "deleted": True})
        return JSONResponse(sessions.described(name))

    def _stored(self) -> Sessions:
        if self.sessions is None:
            raise ApiError(
                404,
                "this server keeps no sessions; start it with --sessions FILE",
                param="session",
                code="no_sessions",
            )
        return self.sessions

    async def _turn(self, asked: CompletionRequest) -> Turn | None:
        """The session of a request, if it asks for one."""
        if asked.session is None:
            return None
        sessions = self._stored()
        return await (sessions.begin(asked.source) if asked.session == NEW else sessions.go_on(asked.session))

    async def models(self, request: Request) -> Response:
        """GET /v1/models: the one there is."""
        self._authorize(request)
        return JSONResponse({"object": "list", "data": [self._described]})

    async def one_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self._authorize(request)
        if request.path_params["name"] != self.name:
            raise ApiError(404, f"no such model; expected {self.name!r}", code="model_not_found")
        return JSONResponse(self._described)

    async def health(self, request: Request) -> Response:
        """GET /health, without a key: 200 while steps are taken, or nobody asks for one."""
        alive = request.app.state.scheduler.alive
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    async def prometheus(self, request: Request) -> Response:
        """GET /metrics, without a key."""
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4")

    @property
    def _described(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "steprnn"}

    def _authorize(self, request: Request) -> None:
        if self.key is None:
            return
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self.key.encode()):
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


async def _body(request: Request, most: int) -> bytes:
    """The body of a JSON request; of one that is too long, no more is kept than may be."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form could be sent here by any web page the user looks at
        raise ApiError(415, f"the content type is {kind[:64]!r}; expected 'application/json'")
    too_large = ApiError(
        413,
        f"the body is too large; expected at most {most:,} bytes",
        code="body_too_large",
        headers={"Connection": "close"},
    )
    if int(request.headers.get("content-length", 0)) > MOST_READ * most:
        raise too_large

    task, late = asyncio.current_task(), False
    assert task is not None

    def give_up() -> None:
        nonlocal late
        late = task.cancel()

    timer = asyncio.get_running_loop().call_later(BODY_SECONDS, give_up)  # wait_for would make a task
    body, size = bytearray(), 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= most:
                body += chunk
            elif size > MOST_READ * most:
                raise too_large
    except asyncio.CancelledError:
        if not late:
            raise
        if sys.version_info >= (3, 11):
            task.uncancel()
        raise ApiError(
            408, f"the body did not come within {BODY_SECONDS:g} s", headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:  # nobody reads the answer, and the log needs no traceback of it
        raise ApiError(400, "the client hung up within the body") from None
    finally:
        timer.cancel()
    if size > most:
        raise too_large
    return bytes(body)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refusal(error)


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = f"{request.method} {request.url.path[:64]}: {error.detail.lower()}; expected POST /v1/completions"
    return refusal(ApiError(error.status_code, words, headers=dict(error.headers or {})))


async def _fail(request: Request, error: Exception) -> Response:
    return refusal(ApiError(500, "the server failed; its log says how"))
