"""Python's logging under `steprnn`: silent unless that name is asked for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def logger(name: str) -> logging.Logger | None:
    """The logger `name`, such as "steprnn.runtime"; None where nobody has imported logging: it takes 10 ms.

    Some libraries, tf2onnx among them, turn the root logger on for everybody, and so `steprnn` has a level
    of its own: `logging.getLogger("steprnn").setLevel("INFO")` asks for more.
    """
    module = sys.modules.get("logging")
    if module is None:
        return None
    ours = module.getLogger("steprnn")
    if ours.level == module.NOTSET:
        ours.setLevel(module.WARNING)
    found: logging.Logger = module.getLogger(name)
    return found
