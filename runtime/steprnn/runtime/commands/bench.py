"""`steprnn bench`: how fast a bundle is on this machine, and how fast it could be."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from ..quiet import quiet

HELP = "measure every engine and variant of a bundle on this machine"
EXAMPLE = "  steprnn bench lyrics.bundle"
NEEDS: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("bundle", type=Path, help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("--quick", action="store_true", help="a few seconds, and less certain figures")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="write JSON")
    kind.add_argument("--csv", action="store_true", help="write CSV, a line for each engine and variant")


def run(arguments: argparse.Namespace) -> int:
    """Measure, progress on stderr, and print."""
    from ..bench.measure import FULL, QUICK, measure
    from ..bench.tables import markdown

    with quiet() as terminal:
        report = measure(arguments.bundle, QUICK if arguments.quick else FULL, _teller(terminal))
    if arguments.json:
        json.dump(asdict(report), sys.stdout, ensure_ascii=False, indent=1)
        sys.stdout.write("\n")
    elif arguments.csv:
        writer = csv.DictWriter(sys.stdout, list(report.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(report.rows)
    else:
        sys.stdout.write("\n".join(markdown(report)) + "\n")
    for line in report.left_out:
        sys.stderr.write(f"left out: {line}\n")
    return 0


def _teller(terminal: TextIO) -> Callable[[str], None]:
    """Writes how far it has come: all of it to a person, one line in a second to a file."""
    began, last = time.perf_counter(), float("-inf")
    person = terminal.isatty()

    def say(line: str) -> None:
        nonlocal last
        now = time.perf_counter()
        if person or now - last >= 1:
            last = now
            terminal.write(f"[{now - began:5.1f} s] {line}\n")
            terminal.flush()

    return say
