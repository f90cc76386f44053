"""One input done from end to end: parts that are kept as they come, and joined when all are there."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import write_bytes
from ..claims import claimed
from ..errors import MissingExtra, UsageError
from ..progress import Progress
from . import outputs
from .columns import Columnar
from .sources import PARQUET, Part, Source
from .workers import Here, Pool, Work, actors, in_order, processes

ROWS = 4096  # in a part: some seconds of work, and some megabytes
RECORD = "job.json"
NAME = re.compile(r"(\d{8})-(\d+)\.\w+")  # of a part: its number, and how many of its rows have an error


@dataclass(frozen=True)
class Told:
    """What is done: the rows in all, those of them by an earlier run, and those with an error."""

    rows: int
    before: int
    bad: int
    first: str = ""  # the first of these that this run met, and what was wrong with it


def run(
    columns: Columnar,
    work: Work,
    source: Path,
    out: Path,
    identity: dict[str, Any],
    *,
    workers: int | None = None,
    ray: str | None = None,
    strict: bool = False,
) -> Told:
    """Do all rows of `source` into `out`, in their order.

    Until all are done, a folder, `out` with `.parts` behind its name, has those that are; the same job goes
    on from there. `identity` tells it from another of the same output. `workers` is of this machine, or with
    `ray`, an address or an empty text, of Ray; without it there is one for each core. Raises `UsageError`
    where `out` or parts of another job are there, and where `strict` finds a row that cannot be done.
    """
    rows = Source(source, columns.column)
    for needed, module, extra in (
        (PARQUET in (rows.kind, work.kind), "pyarrow", "map"),
        (ray is not None, "ray", "ray"),
    ):
        if needed and importlib.util.find_spec(module) is None:
            raise MissingExtra(module, extra)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(out.name + ".parts")
    if out.exists() and not (folder / RECORD).exists():
        raise UsageError(f"{out} is there already; remove it, or choose another --out")
    folder.mkdir(exist_ok=True)
    with claimed(folder):
        _begin(folder, {**identity, "input": rows.record, "rows": ROWS})
        told = _all(columns, work, rows, folder, _pool(columns, work, workers, ray), strict)
        outputs.join([path for _, path in sorted(_known(folder).items())], out, work.kind)
        (folder / RECORD).unlink()  # first: what is left without it is nobody's
        shutil.rmtree(folder)
    return told


def _begin(folder: Path, record: dict[str, Any]) -> None:
    """Raise `UsageError` where the folder has parts of another job."""
    path = folder / RECORD
    if path.exists() and _known(folder):  # a job that ended before its first part left nothing
        before = json.loads(path.read_text(encoding="utf-8"))
        if differ := [name for name in record if before.get(name) != json.loads(json.dumps(record[name]))]:
            name = differ[0]
            raise UsageError(
                f"{folder} has parts of another job, whose {name} was {before.get(name)!r} "
                f"and now is {record[name]!r}; remove it, or choose another --out"
            )
        return
    for left in folder.iterdir():
        left.unlink()
    write_bytes(path, json.dumps(record, ensure_ascii=False, indent=1).encode())


def _known(folder: Path) -> dict[int, Path]:
    """The parts that are there by their numbers."""
    return {int(m[1]): path for path in folder.iterdir() if (m := NAME.fullmatch(path.name))}


def _pool(
    columns: Columnar, work: Work, workers: int | None, ray: str | None
) -> AbstractContextManager[Pool]:
    if ray is not None:
        return actors(work, workers, ray)
    if workers == 1:
        return nullcontext(Here(work, columns))
    return processes(work, workers)


def _all(
    columns: Columnar,
    work: Work,
    rows: Source,
    folder: Path,
    pool: AbstractContextManager[Pool],
    strict: bool,
) -> Told:
    known, numbers, before, count, first = _known(folder), [], 0, 0, ""
    progress = Progress("rows")

    def parts() -> Iterator[Part]:
        nonlocal before
        number = -1
        for number, part in enumerate(rows.parts(ROWS)):
            if number in known:
                before += len(part)
            else:
                numbers.append(number)
                yield part
        if number < 0:  # the output of no rows has columns too
            numbers.append(0)
            yield Part(0, [])

    try:
        with pool as ready:
            for done in in_order(ready, parts()):
                if done.first_bad is not None and not first:
                    place, words = done.first_bad
                    first = f"row {place + 1}: {words}"
                if strict and first:
                    raise UsageError(f"{rows.path} {first}")
                write_bytes(folder / f"{numbers.pop(0):08}-{done.bad}{work.kind}", done.data)
                count += done.rows
                progress.tell(before + count, rows.share, before)
    finally:
        progress.end()
    bad = sum(int(m[2]) for path in folder.iterdir() if (m := NAME.fullmatch(path.name)))
    return Told(before + count, before, bad, first)
