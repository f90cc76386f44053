"""Where this steprnn came from, and hence the line that installs an extra of it, or a newer one."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname


def install(extra: str) -> str:
    """The command that adds an extra, such as `pip install 'steprnn[onnx]'` where an index has steprnn."""
    record = _record()
    url = record.get("url")
    if url is None:
        what = f"steprnn[{extra}]"
    elif path := _path(url):
        what = f"{path}[{extra}]"
    else:
        scheme = f"{record['vcs_info']['vcs']}+" if "vcs_info" in record else ""
        what = f"steprnn[{extra}] @ {scheme}{url}"
    editable = "--editable " if record.get("dir_info", {}).get("editable") else ""
    return f"pip install {editable}{shlex.quote(what)}"


def upgrade() -> str:
    """What to do for a newer version."""
    url = _record().get("url")
    if url is None:
        return "run: pip install --upgrade steprnn"
    return f"install a newer steprnn; this one is from {_path(url) or url}"


def _record() -> dict[str, Any]:
    """What pip recorded of a folder, a file or a repository; empty for a package of an index.

    Source: direct_url.json of PyPA's specifications.
    """
    try:
        text = distribution("steprnn").read_text("direct_url.json")
    except PackageNotFoundError:
        return {}
    return dict(json.loads(text)) if text else {}


def _path(url: str) -> str:
    """The path of a file: URL; empty for another."""
    parts = urlsplit(url)
    return str(Path(url2pathname(parts.path))) if parts.scheme == "file" else ""
