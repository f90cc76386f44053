"""What is killed: a command, what it writes, and how to tell whether that is whole."""

from __future__ import annotations

import json
import shutil
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

TINY = Path(__file__).parents[1] / "tiny" / "bundle"
TEXT = "分开的时候，山外有雨，雨外有山。\n不分开的时候，灯下有酒，酒下有灯。\n" * 6


class Job(ABC):
    """A command whose `place` holds what it writes and nothing else."""

    name = ""
    once = False  # whether there is nothing to do any more after a run that came to its end

    def __init__(self, place: Path) -> None:
        self.place = place

    def prepare(self) -> None:  # noqa: B027 (most have nothing)
        """What stands there before the first kill."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """Those of the command."""

    def work(self) -> int:
        from steprnn.runtime import cli

        return cli.main(self.arguments())

    @abstractmethod
    def look(self) -> None:
        """After a kill: raises where anything is lost or half."""

    @abstractmethod
    def result(self) -> Any:
        """After a run that was left alone: raises where it is not whole; what it must be each time."""

    @abstractmethod
    def names(self) -> set[str]:
        """What stands in `place` after that."""


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

        from steprnn.train import fit  # a run takes two seconds

        fit.train_prepared = functools.partial(fit.train_prepared, backup_every=0.02)
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


class ExportAll(Export):
    name = "export, all formats, int8"

    def arguments(self) -> list[str]:
        flags = ["--formats", "saved_model,tflite,onnx,program", "--quantize", "none,int8"]
        checkpoint = self.place.parent / "checkpoint"
        return ["export", str(checkpoint), "--out", str(self.place / "bundle"), *flags]

    def names(self) -> set[str]:
        return super().names() | {"bundle/saved_model/assets"}  # which TensorFlow makes and leaves empty


class Check(Job):
    name = "check"

    def prepare(self) -> None:
        shutil.copytree(TINY, self.place / "tiny.bundle")

    def arguments(self) -> list[str]:
        return ["check", str(self.place / "tiny.bundle"), "--report", str(self.place / "report")]

    def bundle(self) -> set[str]:
        """Its files; raises where it is not what it was."""
        return verify(self.place / "tiny.bundle")

    def look(self) -> None:
        self.bundle()
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
        return self.bundle() | {"report", *(f"report/{name}" for name in files)}


class CheckReference(Check):
    """A bundle in a zip against the model it came from."""

    name = "check --reference"

    def prepare(self) -> None:
        from steprnn.runtime import cli

        Train(self.place.parent).work()
        checkpoint, bundle = self.place.parent / "checkpoint", self.place.parent / "made.bundle"
        flags = ["--formats", "tflite,onnx", "--quantize", "none"]
        assert cli.main(["export", str(checkpoint), "--out", str(bundle), *flags]) == 0
        assert cli.main(["package", str(bundle), "--as", "zip", "--out", str(self.place / "made.zip")]) == 0

    def arguments(self) -> list[str]:
        reference = ["--reference", str(self.place.parent / "checkpoint"), "--steps", "32", "--seeds", "1"]
        return ["check", str(self.place / "made.zip"), *reference, "--report", str(self.place / "report")]

    def bundle(self) -> set[str]:
        with zipfile.ZipFile(self.place / "made.zip") as archive:
            assert archive.testzip() is None
        return {"made.zip"}


class Package(Job):
    """A file that is there or not: a zip."""

    name = "package as zip"
    file = "tiny.zip"

    def arguments(self) -> list[str]:
        return ["package", str(TINY), "--as", "zip", "--out", str(self.place / self.file)]

    def look(self) -> None:
        path = self.place / self.file
        if path.exists() or (self.place.parent / "had").exists():
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None
            (self.place.parent / "had").touch()

    def result(self) -> Any:
        import hashlib

        return hashlib.sha256((self.place / self.file).read_bytes()).hexdigest()

    def names(self) -> set[str]:
        return {self.file}


class Wheel(Package):
    name = "package as wheel"
    file = "tiny_lstm-1.0.0-py3-none-any.whl"

    def arguments(self) -> list[str]:
        flags = ["--name", "tiny-lstm", "--version", "1.0.0"]
        return ["package", str(TINY), "--as", "wheel", "--out", str(self.place), *flags]


class Sources(Job):
    """A folder that is there or not: of C."""

    name = "package as c"
    folder = "c"

    def prepare(self) -> None:
        from steprnn.runtime import cli

        Train(self.place.parent).work()
        checkpoint, bundle = self.place.parent / "checkpoint", self.place.parent / "made.bundle"
        flags = ["--formats", "program", "--quantize", "none"]
        assert cli.main(["export", str(checkpoint), "--out", str(bundle), *flags]) == 0

    def arguments(self) -> list[str]:
        made = self.place.parent / "made.bundle"
        return ["package", str(made), "--as", "c", "--out", str(self.place / self.folder)]

    def files(self) -> dict[str, str]:
        """What it holds, with their hashes."""
        import hashlib

        folder = self.place / self.folder
        return {
            str(path.relative_to(self.place)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def look(self) -> None:
        whole, had = self.files(), self.place.parent / "had"
        if had.exists():
            assert whole == json.loads(had.read_text()), "it is not the folder that stood there"
        elif whole:
            had.write_text(json.dumps(whole))

    def result(self) -> Any:
        return self.files()

    def names(self) -> set[str]:
        return {str(p) for name in self.files() for p in (Path(name), *Path(name).parents)}


class Page(Sources):
    name = "package as web"
    folder = "web"

    def prepare(self) -> None:
        from steprnn.runtime.package.ort import engine_files

        engine_files()  # which npm brings once

    def arguments(self) -> list[str]:
        return ["package", str(TINY), "--as", "web", "--out", str(self.place / self.folder)]


JOBS: tuple[type[Job], ...] = (
    Train,
    Export,
    ExportAll,
    Check,
    CheckReference,
    Package,
    Wheel,
    Sources,
    Page,
)
