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
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

TINY = Path(__file__).parents[1] / "tiny" / "bundle"
TEXT = "分开的时候，山外有雨，雨外有山。\n不分开的时候，灯下有酒，酒下有灯。\n" * 6
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


class Job:
    """A command, what it writes, and how to tell whether that is whole. `place` holds it and nothing else."""

    name = ""
    once = False  # whether there is nothing to do any more after a run that came to its end

    def __init__(self, place: Path) -> None:
        self.place = place

    def prepare(self) -> None:
        """What stands there before the first kill."""

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def work(self) -> int:
        from steprnn.runtime import cli

        return cli.main(self.arguments())

    def look(self) -> None:
        """After a kill: raises where anything is lost or half."""

    def result(self) -> Any:
        """After a run that was left alone: raises where it is not whole; what it must be each time."""

    def names(self) -> set[str]:
        """What stands in `place` after that."""
        raise NotImplementedError


class Train(Job):
    name = "train, resume"
    once = True

    def arguments(self) -> list[str]:
        corpus = self.place.parent / "corpus.txt"
        corpus.write_text(TEXT, encoding="utf-8")
        flags = "--epochs 8 --units 8 --batch 4 --window 8 --dropout 0.1 --holdout 0.2 --quiet"
        return ["train", "--corpus", str(corpus), "--out", str(self.place / "checkpoint"), *flags.split()]

    def work(self) -> int:
        import functools

        from steprnn.train import fit

        fit.train = functools.partial(fit.train, backup_every=0.02)  # a run takes two seconds
        return super().work()

    def look(self) -> None:
        from steprnn.runtime import Vocabulary
        from steprnn.train.checkpoint import Training
        from steprnn.train.resume import State

        folder = self.place / "checkpoint"
        if not (folder / "training.json").exists():
            return  # it had not begun
        Training.read(folder)
        if (folder / "vocabulary.json").exists():
            Vocabulary.read(folder / "vocabulary.json")
        State.read(folder / "resume.npz")
        if (folder / "model.keras").exists():
            with zipfile.ZipFile(folder / "model.keras") as archive:
                assert archive.testzip() is None

    def result(self) -> Any:
        import hashlib

        import h5py

        from steprnn.train.checkpoint import Training

        self.look()
        record = Training.read(self.place / "checkpoint")
        assert record.finished
        digest = hashlib.sha256()

        def add(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                digest.update(name.encode() + item[()].tobytes())

        with (
            zipfile.ZipFile(self.place / "checkpoint" / "model.keras") as archive,
            archive.open("model.weights.h5") as file,
            h5py.File(file) as weights,
        ):
            weights.visititems(add)
        return [digest.hexdigest(), [entry["held_out_loss"] for entry in record.history], record.best_epoch]

    def names(self) -> set[str]:
        files = ("history.png", "model.keras", "training.json", "vocabulary.json")
        return {"checkpoint", *(f"checkpoint/{name}" for name in files)}


def verify(folder: Path) -> set[str]:
    """The files of a whole bundle, its folder too; raises where it is none."""
    from steprnn.runtime.bundle.manifest import Manifest

    manifest = Manifest.read(folder)
    manifest.verify(folder, list(manifest.files))
    files = {"manifest.json", *manifest.files}
    above = {str(p) for name in files for p in Path(name).parents}
    return {str(Path(folder.name) / name) for name in files | above}


class Export(Job):
    name = "export"

    def prepare(self) -> None:
        Train(self.place.parent).work()

    def arguments(self) -> list[str]:
        checkpoint = self.place.parent / "checkpoint"
        flags = ["--formats", "tflite,onnx", "--quantize", "none"]
        return ["export", str(checkpoint), "--out", str(self.place / "bundle"), *flags]

    def look(self) -> None:
        if (self.place / "bundle").exists() or self.had():
            verify(self.place / "bundle")
            (self.place.parent / "had").touch()

    def had(self) -> bool:
        """Whether a bundle has stood there, which then must not be lost."""
        return (self.place.parent / "had").exists()

    def result(self) -> Any:
        from steprnn.runtime import load

        self.look()
        return [load(self.place / "bundle", engine=e).generate("分", 30) for e in ("litert", "onnx")]

    def names(self) -> set[str]:
        return verify(self.place / "bundle")


class Check(Job):
    name = "check"

    def prepare(self) -> None:
        shutil.copytree(TINY, self.place / "tiny.bundle")

    def arguments(self) -> list[str]:
        return ["check", str(self.place / "tiny.bundle"), "--report", str(self.place / "report")]

    def look(self) -> None:
        verify(self.place / "tiny.bundle")
        for path in (self.place / "report").glob("[!.]*"):
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".json":
                json.loads(text)
            elif path.suffix == ".xml":
                ElementTree.fromstring(text)
            else:
                assert text.rstrip().endswith("</html>"), path

    def result(self) -> Any:
        self.look()
        return None

    def names(self) -> set[str]:
        files = ("report.json", "junit.xml", "report.html")
        return verify(self.place / "tiny.bundle") | {"report", *(f"report/{name}" for name in files)}


class Package(Job):
    name = "package"

    def arguments(self) -> list[str]:
        return ["package", str(TINY), "--as", "zip", "--out", str(self.place / "tiny.zip")]

    def look(self) -> None:
        path = self.place / "tiny.zip"
        if path.exists() or (self.place.parent / "had").exists():
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
            (self.place.parent / "had").touch()

    def result(self) -> Any:
        import hashlib

        return hashlib.sha256((self.place / "tiny.zip").read_bytes()).hexdigest()

    def names(self) -> set[str]:
        return {"tiny.zip"}


JOBS: tuple[type[Job], ...] = (Train, Export, Check, Package)


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

        def prepare() -> int:
            job.prepare()
            return 0

        assert ended(forked(prepare, series / "told"), LIMIT) == 0, (series / "told").read_text()
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
