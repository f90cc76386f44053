"""For PyInstaller, which asks an installed steprnn for its hooks (the entry point `hook-dirs`)."""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """The folder of the hooks."""
    return [str(Path(__file__).parent)]
