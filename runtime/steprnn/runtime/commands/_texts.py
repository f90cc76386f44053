"""Texts from a file or stdin, and a line of JSON for the result of each."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..bulk.records import Record, of_json, of_text, to_json
from ..errors import SteprnnError, UsageError
from ..model import Model
from ..progress import Progress
from ..texts.batches import Task, each, named
from ..texts.encoding import UTF_16, not_utf8
from . import _engine_flags

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the texts come from, and the engine."""
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("file", nargs="?", help="UTF-8, a text a line; .jsonl is JSON lines (default: stdin)")
    parser.add_argument(
        "--jsonl", action="store_true", help="each line is JSON: a text, or an object that has one"
    )
    parser.add_argument("--column", default="text", metavar="NAME", help="the field with the text")
    parser.add_argument(
        "--unknown", choices=("error", "skip"), default="error", help="characters the model does not know"
    )
    _engine_flags.add_arguments(parser)


@contextmanager
def records(arguments: argparse.Namespace) -> Iterator[tuple[str, Iterator[Record]]]:
    """The name of the input, and its records; an error of a line is in its record."""
    stdin = arguments.file in (None, "-")
    if arguments.file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise UsageError("the texts are missing; give a FILE, or pipe them in, one a line")
    as_json = arguments.jsonl or (not stdin and arguments.file.lower().endswith((".jsonl", ".ndjson")))
    read = of_json if as_json else of_text
    if stdin:
        yield "stdin", read(sys.stdin.buffer, arguments.column)
        return
    path = Path(arguments.file)
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}; expected a UTF-8 file with texts")
    with path.open("rb") as file:
        if (head := file.read(2)).startswith(UTF_16):
            raise UsageError(not_utf8(arguments.file, head, 0))
        file.seek(0)
        yield arguments.file, read(file, arguments.column)


def run(
    arguments: argparse.Namespace,
    task_of: Callable[[Model], Task[T]],
    write: Callable[[dict[str, Any], T], object],
    sum_up: Callable[[], str],
) -> int:
    """Do the task with each text and `write` its fields and result; at the first that is refused, stop.

    What was done is told on stderr, with the words of `sum_up`.
    """
    with records(arguments) as (name, found):
        model = _engine_flags.load_model(arguments)
        task = task_of(model)
        started, progress, count = time.perf_counter(), Progress("texts"), 0
        waiting: deque[dict[str, Any]] = deque()  # read ahead, and without a result
        try:
            for result in each(_texts(found, arguments.column, waiting), task):
                count += 1
                if isinstance(result, SteprnnError):
                    raise named(result, f"{name} line {count}")
                write(waiting.popleft(), result)
                progress.tell(count)
        finally:
            progress.end()
            sys.stdout.flush()
    seconds = time.perf_counter() - started
    texts = f"{count:,} text{'' if count == 1 else 's'}"
    told = f"{model.engine} {model.artefact.variant}, {texts}{sum_up()} in {seconds * 1e3:.1f} ms"
    sys.stderr.write(told + "\n")
    return 0


def _texts(
    found: Iterable[Record], column: str, waiting: deque[dict[str, Any]]
) -> Iterator[str | SteprnnError]:
    for record in found:
        waiting.append(record.fields)
        yield UsageError(record.error) if record.error else record.fields[column]


def put(fields: dict[str, Any], **results: Any) -> None:
    """Write a record and what was found to stdout; raises `UsageError` where a field is there already."""
    if taken := fields.keys() & results.keys():
        raise UsageError(f"the input has a field {min(taken)!r} already; rename it")
    sys.stdout.buffer.write(to_json(fields | results))
