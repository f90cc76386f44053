"""Who may ask: the hosts and origins of a loopback server, as browsers and attackers send them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from steprnn.runtime import UsageError
from steprnn.runtime.serve.guard import checked_origins, is_loopback

from .server import Server, stopping

FRIEND = "https://app.example"


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[Server]:
    with stopping(Server(tiny, "--name", "tiny", "--allow-origin", FRIEND)) as server:
        yield server


def ask(
    port: int, headers: dict[str, str], path: str = "/v1/completions", method: str = "POST"
) -> tuple[int, Any, Any]:
    """Status, headers and body; `Host` among the headers is what is sent."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest(method, path, skip_host="Host" in headers)
        body = json.dumps({"prompt": "分", "max_tokens": 1}).encode() if method == "POST" else b""
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        content = response.read()
        return response.status, response.headers, json.loads(content) if content.startswith(b"{") else content


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:{port}", "127.0.0.1:{port}", "127.0.0.9", "[::1]:{port}", "a.localhost"]
)
def test_a_loopback_server_goes_by_the_names_of_loopback(server: Server, host: str) -> None:
    assert ask(server.port, {"Host": host.format(port=server.port)})[0] == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/health", "/metrics", "/nowhere"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "localhost.evil.example", "10.0.0.1", "[::1", "", "::1.x"]
)
def test_another_host_is_refused(server: Server, host: str, path: str) -> None:
    """A name that was made to point here: its page is of the same origin to the browser."""
    method = "POST" if path == "/v1/completions" else "GET"
    host = host.format(port=server.port)
    status, _, body = ask(server.port, {"Host": host, "Origin": f"http://{host}"}, path, method)
    assert (status, body["error"]["code"]) == (403, "foreign_host")
    assert body["error"]["message"] == (
        f"the Host is {host!r}, which is not a name of this loopback server; ask for http://localhost, "
        "or set a key or --allow-origin"
    )


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "http://[", "x"])
def test_a_foreign_origin_is_refused(server: Server, origin: str) -> None:
    for method in ("POST", "OPTIONS"):
        status, headers, body = ask(server.port, {"Origin": origin}, method=method)
        assert (status, body["error"]["code"]) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in headers


def test_the_page_of_the_server_may_ask(server: Server) -> None:
    assert ask(server.port, {"Origin": f"http://127.0.0.1:{server.port}"})[0] == 200


def test_an_origin_that_is_allowed_may_ask_and_read(server: Server) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    status, headers, _ = ask(server.port, {"Origin": FRIEND} | asks, method="OPTIONS")
    assert (status, headers["access-control-allow-origin"]) == (200, FRIEND)
    assert "content-type" in headers["access-control-allow-headers"].lower()
    status, headers, _ = ask(server.port, {"Origin": FRIEND})
    assert (status, headers["access-control-allow-origin"]) == (200, FRIEND)
    assert "X-Seed" in headers["access-control-expose-headers"]
    assert (
        ask(server.port, {"Host": "app.example", "Origin": FRIEND})[0] == 200
    )  # through a proxy that keeps it


def test_with_a_key_the_host_may_be_any(tiny: Path) -> None:
    """A page that does not know the key gets nothing; a proxy with a name of its own does."""
    with stopping(Server(tiny, key="secret")) as server:
        headers = {"Host": "models.example", "Authorization": "Bearer secret"}
        assert ask(server.port, headers)[0] == 200
        assert ask(server.port, headers | {"Origin": "http://evil.example"})[0] == 403


def test_any_origin(tiny: Path) -> None:
    with stopping(Server(tiny, "--allow-origin", "*")) as server:
        status, headers, _ = ask(server.port, {"Origin": "null"})
        assert (status, headers["access-control-allow-origin"]) == (200, "*")


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://", "https://a b/c", "http://[", "", "https:x"]
)
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(UsageError) as raised:
        checked_origins([FRIEND, origin])
    assert str(raised.value) == (
        f"--allow-origin is {origin!r}; expected such as https://app.example:8443, or *"
    )


def test_loopback() -> None:
    for name in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "x.localhost", "::1%lo"):
        assert is_loopback(name), name
    for name in ("0.0.0.0", "::", "192.168.0.1", "localhost.example", "notlocalhost", "", "127.1"):
        assert not is_loopback(name), name
