"""Kills of train, export, check and package: `python tests/hostile/kill.py --kills 1000 --seed 1`.

All is imported once, and each run is a fork that begins where a command has its imports done, so that a kill
costs one to three seconds. The moment is drawn over the whole course of a run that nobody disturbed. Each
series of kills is followed by a run that is left alone. After a kill nothing may be lost or half; after the
last run nothing may be left over, and a training must have the weights of one that nobody disturbed. In every
third series the signals are SIGTERM and SIGINT, which leave nothing at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.insert(0, str(Path(__file__).parent))  # it is a program

from jobs import JOBS, Job

COLUMNS = ("kills", "runs", "lost or half", "litter", "unequal", "stuck")
LIMIT = 120.0  # seconds that a run may take, or need to end after a signal
SERIES = 6  # kills before a run is left alone


def preload() -> None:
    """All that the commands import; nothing of it has computed anything yet, so that it can be forked."""
    import onnx  # noqa: F401
    import tensorflow  # noqa: F401
    import tf2onnx  # noqa: F401

    import steprnn.export.bundle
    import steprnn.export.check.command
    import steprnn.export.check.judge
    import steprnn.export.command
    import steprnn.export.report.files
    import steprnn.runtime.cli
    import steprnn.runtime.engines.litert
    import steprnn.runtime.engines.onnx
    import steprnn.runtime.package.c
    import steprnn.runtime.package.web
    import steprnn.runtime.package.wheel
    import steprnn.runtime.package.zip
    import steprnn.train.fit  # noqa: F401


def forked(work: Callable[[], int], told: Path) -> int:
    """Run in a fork, with a TMPDIR beside `told`, to which its output goes; the number of the process."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        temporary = told.parent / "tmp"
        temporary.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(process: int, limit: float) -> int | None:
    """The status of a process, as `waitpid` tells it; None where it still runs after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        number, status = os.waitpid(process, os.WNOHANG)
        if number:
            return status
        if time.monotonic() > end:
            return None
        time.sleep(0.002)


class Killer:
    """The kills of one job."""

    def __init__(self, kind: type[Job], home: Path, chance: random.Random) -> None:
        self.kind, self.home, self.chance = kind, home, chance
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []
        self.number = 0
        job = self._begin()
        began = time.monotonic()
        status = ended(forked(job.work, job.place.parent / "told"), LIMIT)
        self.course = time.monotonic() - began  # seconds of a run that is left alone
        assert status == 0, (job.place.parent / "told").read_text()
        self.expected = self._asked(job, job.result)
        if problem := self._left(job):
            raise AssertionError(problem)

    def _begin(self) -> Job:
        self.number += 1
        series = self.home / f"{self.kind.__name__.lower()}{self.number}"
        (series / "place").mkdir(parents=True)
        job = self.kind(series / "place")
        template = self.home / f"{self.kind.__name__.lower()}-prepared"
        if template.exists():
            shutil.copytree(template, series, dirs_exist_ok=True)
            return job

        def prepare() -> int:
            job.prepare()
            return 0

        assert ended(forked(prepare, series / "told"), LIMIT) == 0, (series / "told").read_text()
        shutil.copytree(series, template)
        return job

    def _asked(self, job: Job, question: Callable[[], Any]) -> Any:
        """What a function says in a process of its own: engines start threads, which do not fork."""
        answer = job.place.parent / "answer"

        def ask() -> int:
            answer.write_text(json.dumps(question()))
            return 0

        answer.unlink(missing_ok=True)
        assert ended(forked(ask, job.place.parent / "told"), LIMIT) == 0, "the look failed"
        return json.loads(answer.read_text())

    def _left(self, job: Job) -> str:
        """In words, what should not be there."""
        there = {str(path.relative_to(job.place)) for path in job.place.rglob("*")} | {"."}
        temporary = {path.name for path in (job.place.parent / "tmp").glob("*")}
        strangers = sorted((there - job.names() - {"."}) | temporary)
        return ", ".join(strangers[:5])

    def series(self, kills: int) -> None:
        """So many kills, then a run that is left alone."""
        job = self._begin()
        soft = self.number % 3 == 0
        done = 0
        while done < kills:
            process = forked(job.work, job.place.parent / "told")
            status = ended(process, self.chance.uniform(0, self.course))
            if status is None:
                done += 1
                number = self.chance.choice([signal.SIGTERM, signal.SIGINT]) if soft else signal.SIGKILL
                os.kill(process, number)
                if ended(process, LIMIT) is None:
                    self._note("stuck", job, f"after signal {number}")
                    os.kill(process, signal.SIGKILL)
                    os.waitpid(process, 0)
                self.counts["kills"] += 1
            else:
                self.counts["runs"] += 1
                if status != 0:
                    self._note("lost or half", job, f"a run ended with {status}")
                if job.once:
                    break
            try:
                self._asked(job, job.look)
            except AssertionError as error:
                self._note("lost or half", job, str(error))
            temporary = [path.name for path in (job.place.parent / "tmp").glob("*")]
            if soft and temporary:
                self._note("litter", job, f"after a signal: {temporary[0]}")
        status = ended(forked(job.work, job.place.parent / "told"), LIMIT)
        self.counts["runs"] += 1
        try:
            if status != 0:
                self._note("lost or half", job, f"the last run ended with {status}")
            elif self._asked(job, job.result) != self.expected:
                self._note("unequal", job, "to a run that nobody disturbed")
            if problem := self._left(job):
                self._note("litter", job, problem)
        except AssertionError as error:
            self._note("lost or half", job, str(error))
        if not any(job.place.parent.name in line for line in self.bad):
            shutil.rmtree(job.place.parent)

    def _note(self, what: str, job: Job, words: str) -> None:
        self.counts[what] += 1
        self.bad.append(f"{job.place.parent}: {what}: {words}")


def main() -> int:
    """Every job; a table, and 1 where anything was lost, half, left over, unequal or stuck."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="of all jobs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="*", choices=[j.__name__.lower() for j in JOBS])
    arguments = parser.parse_args()
    jobs = [j for j in JOBS if not arguments.jobs or j.__name__.lower() in arguments.jobs]
    preload()
    home = Path(tempfile.mkdtemp(prefix="killed-"))
    bad: list[str] = []
    sys.stdout.write(f"| job | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 1)}\n")
    for kind in jobs:
        killer = Killer(kind, home, random.Random(arguments.seed))
        while (left := arguments.kills // len(jobs) - killer.counts["kills"]) > 0:
            killer.series(min(SERIES, left))
        bad += killer.bad
        sys.stdout.write(f"| {kind.name} | {' | '.join(str(killer.counts[c]) for c in COLUMNS)} |\n")
        sys.stdout.flush()
    sys.stderr.writelines(f"{line}\n" for line in bad[:50])
    if not bad:
        shutil.rmtree(home)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
