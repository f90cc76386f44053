"""Who may ask: a page in a browser may not, unless it is of this server or of an origin that is allowed."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import UsageError
from .errors import ApiError, refusal

ANY = "*"


class Guard:
    """Refuses requests with a foreign `Origin`, and on a loopback address those with a foreign `Host`.

    Where a name of an attacker is made to point to 127.0.0.1 (DNS rebinding), a page from there is of the
    same origin to its browser, and only the `Host` tells. A key is asked for instead where there is one.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], hosts: Sequence[str] | None) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._any_host = hosts is None
        self._hosts = {*(hosts or ()), *(_split(origin).hostname for origin in origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http" and (error := self._refused(Headers(scope=scope))):
            await refusal(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refused(self, headers: Headers) -> ApiError | None:
        host, origin = headers.get("host"), headers.get("origin")
        if not (self._any_host or host is None or self._is_own(host)):
            return ApiError(
                403,
                f"the Host is {host[:64]!r}, which is not a name of this loopback server; ask for "
                "http://localhost, or set a key or --allow-origin",
                code="foreign_host",
            )
        if origin is None or {origin, ANY} & self._origins:
            return None
        if host is not None and _split(origin).netloc == host:  # the page of this server
            return None
        return ApiError(
            403,
            f"the Origin is {origin[:64]!r}; a page from there needs: steprnn serve --allow-origin ORIGIN",
            code="foreign_origin",
        )

    def _is_own(self, host: str) -> bool:
        name = _split(f"//{host}").hostname or ""
        return name in self._hosts or is_loopback(name)


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is this machine to itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def checked_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Origins as a browser sends them; raises `UsageError` where one is something else."""
    for origin in origins:
        parts = _split(origin)
        fits = parts.scheme and parts.hostname and origin == f"{parts.scheme}://{parts.netloc}"
        if not fits and origin not in (ANY, "null"):
            raise UsageError(f"--allow-origin is {origin!r}; expected such as https://app.example:8443, or *")
    return tuple(origins)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # such as half of an IPv6 address
        return SplitResult("", "", "", "", "")
