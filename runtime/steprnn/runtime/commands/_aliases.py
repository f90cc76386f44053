"""Other spellings of a flag, as hands know them from elsewhere; `--help` shows one."""

from __future__ import annotations

import argparse


def alias(action: argparse.Action, *flags: str, of: argparse._ActionsContainer) -> None:
    """Let these flags do what `action` does, in the parser or group `of`."""
    of.add_argument(
        *flags,
        dest=action.dest,
        action=type(action),
        type=action.type or str,
        choices=action.choices,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
