"""An error in the shape that OpenAI's clients read."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class ApiError(Exception):
    """An answer that is no text: a status, what is wrong in one line, and the field that is meant."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON; a lone surrogate, which UTF-8 does not have, becomes a question mark."""
    return JSON.encode(value).encode("utf-8", "replace")


def refusal(error: ApiError) -> Response:
    """The answer that tells an error."""
    return Response(encode(error.body), error.status, error.headers, "application/json")
