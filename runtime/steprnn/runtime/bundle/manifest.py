"""manifest.json: what a bundle holds, the contract of its step, and the hash of every file.

docs/bundle-format.md is the specification; this file follows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..files import BUNDLE_FORMAT, INITIAL, MANIFEST, TRAINING, export_line, read_record, write_record
from ..spec import StepSpec, TensorSpec
from .arrays import read_arrays
from .checked import check_manifest, expect, is_inside
from .packed import Packed, Place

Arrays = dict[str, NDArray[np.float32]]
# The most exact first (docs/decisions/0041-variants.md): int8 rounds activations too, and
# int16x8 is for devices, where states are integers.
VARIANTS = ("float32", "float16", "int8-weights", "int8", "int16x8", "int8-fixed")


@dataclass(frozen=True)
class Artefact:
    """One graph of a bundle: a file, or a folder for a SavedModel."""

    name: str  # "<format>-<variant>", unique in the bundle
    format: str  # "onnx", "tflite", "program" or "saved_model"
    variant: str  # one of VARIANTS
    method: str  # how the weights are kept, in the vendor's own terms
    path: str  # relative to the bundle


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of one file of the bundle."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Place) -> FileRecord:
        """Measure a file."""
        data = path.read_bytes()
        return cls(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Start:
    """The graphs that compute the states a stream begins with from what stays the same over it.

    `spec` has no states; its outputs are named as the step's states that they are. There is one graph a
    format, in float32 whatever the variant of the step.
    """

    spec: StepSpec
    artefacts: tuple[Artefact, ...]

    def graph(self, format: str) -> Artefact:
        """The one of this format; raises `BundleError` where there is none."""
        found = next((a for a in self.artefacts if a.format == format), None)
        if found is None:
            raise BundleError(f"the bundle has no graph start in {format}, from which its states begin")
        return found


@dataclass(frozen=True)
class Manifest:
    """The record of a bundle. `model` is the sha256 of the weights; states are bound to it."""

    model: str
    step: StepSpec
    artefacts: tuple[Artefact, ...]
    files: dict[str, FileRecord]
    about: dict[str, Any]  # source, versions, proofs: for people, not for code
    # Artefact -> bytes of weights that one step reads, of a looked-up table one row; older bundles have none.
    read_bytes: dict[str, int] = field(default_factory=dict)
    start: Start | None = None
    # TFLite graph -> "inputs" and "outputs": which name stands at each position; older bundles have none.
    positions: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    # Graph of integers -> what one stands for, of each tensor that is int16 in it, by name.
    scales: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def static(self) -> tuple[TensorSpec, ...]:
        """The inputs that stay the same over a stream: of the step, and of its start."""
        own = {t.name: t for t in self.step.inputs if t.static}
        begins = self.start.spec.inputs if self.start else ()
        return (*own.values(), *(replace(t, static=True) for t in begins if t.name not in own))

    @property
    def writes_text(self) -> bool:
        """Whether it is of a language model that begins by itself."""
        return self.step.is_language_model and self.start is None

    def artefact(self, format: str, variant: str) -> Artefact | None:
        """The artefact of this format and variant, if the bundle holds one."""
        return next((a for a in self.artefacts if (a.format, a.variant) == (format, variant)), None)

    def files_of(self, artefact: Artefact) -> list[str]:
        """Names of the files of one artefact."""
        return [n for n in self.files if n == artefact.path or n.startswith(f"{artefact.path}/")]

    def size_of(self, artefact: Artefact) -> int:
        """Bytes of one artefact on disk."""
        return sum(self.files[name].bytes for name in self.files_of(artefact))

    def initial_state(self, folder: Place) -> dict[str, NDArray[np.float32]]:
        """What a stream begins with, `[size...]` by state: zero, but for what initial.npz holds."""
        states = {t.name: np.zeros(t.shape, np.float32) for t in self.step.states}
        if INITIAL in self.files:
            self.verify(folder, [INITIAL])
            states |= self._first_states(folder / INITIAL, states)
        return states

    def _first_states(self, path: Place, zeros: Mapping[str, NDArray[np.float32]]) -> Arrays:
        def judge(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> str | None:
            if name not in zeros:
                return f"a state: {', '.join(zeros)}"
            fits = dtype == np.float32 and shape == zeros[name].shape
            return None if fits else f"float32 {list(zeros[name].shape)}"

        try:
            with path.open("rb") as file:
                arrays = read_arrays(file, judge, sum(array.nbytes for array in zeros.values()))
            for name, array in arrays.items():
                expect(np.isfinite(array).all(), f"{name!r} is not finite")
        except Exception as error:  # a damaged zip raises what the zip and npy readers think of it
            raise BundleError(f"{path} does not hold first states ({error}); export again") from None
        return arrays

    def write(self, folder: Path) -> None:
        """Write manifest.json, the last file of a bundle to be written."""
        record = {
            "model": self.model,
            "step": self.step.to_record(),
            "artefacts": [vars(a) for a in self.artefacts],
            "files": {name: vars(record) for name, record in sorted(self.files.items())},
            "about": self.about,
            "read_bytes": self.read_bytes,
            "positions": self.positions,
        } | ({"scales": self.scales} if self.scales else {})
        if self.start is None:  # as readers of version 1 know it; they would begin the others at zero
            write_record(folder / MANIFEST, replace(BUNDLE_FORMAT, version=1), record)
            return
        graphs = [vars(a) for a in self.start.artefacts]
        record["start"] = self.start.spec.to_record() | {"artefacts": graphs}
        write_record(folder / MANIFEST, BUNDLE_FORMAT, record)

    @classmethod
    def read(cls, folder: Place) -> Manifest:
        """Read manifest.json; raises `BundleError` where it is missing, damaged or of a newer version."""
        path = folder / MANIFEST
        if not path.is_file():
            raise _no_bundle(Path(str(folder)))
        record = read_record(path, BUNDLE_FORMAT, BundleError, "copy the bundle again")
        for name in record["files"] if isinstance(record.get("files"), dict) else ():
            if not is_inside(name):
                raise BundleError(f"{path} names the file {name!r}, outside the bundle; do not trust it")
        try:
            check_manifest(record)
            manifest = cls(
                str(record["model"]),
                StepSpec.from_record(record["step"]),
                _artefacts(record),
                {name: FileRecord(int(r["bytes"]), str(r["sha256"])) for name, r in record["files"].items()},
                dict(record["about"]),
                {str(name): int(size) for name, size in record.get("read_bytes", {}).items()},
                _start(record.get("start")),
                dict(record.get("positions", {})),
                dict(record.get("scales", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{path} is damaged ({type(error).__name__}: {error}); export again") from None
        for artefact in (*manifest.artefacts, *(manifest.start.artefacts if manifest.start else ())):
            if not manifest.files_of(artefact):  # it would be opened without having been verified
                raise BundleError(f"{path} lists no file of {artefact.name}; do not trust it")
        return manifest

    def verify(self, folder: Place, names: list[str]) -> None:
        """Compare files with their records; raises `BundleError` naming the first that differs."""
        for name in names:
            path, expected = folder / name, self.files.get(name)
            if expected is None:
                raise BundleError(f"{folder / MANIFEST} does not list {name}; export again")
            if not path.is_file():
                raise BundleError(f"{path} is missing; copy the bundle again")
            if isinstance(path, Packed):
                continue  # it was compared when it was read
            size = path.stat().st_size
            if size != expected.bytes:
                raise BundleError(
                    f"{path} has {size:,} bytes, expected {expected.bytes:,}; copy the bundle again"
                )
            if FileRecord.of(path).sha256 != expected.sha256:
                raise BundleError(
                    f"{path} was altered: its sha256 is not the manifest's; copy the bundle again"
                )


def _no_bundle(path: Path) -> BundleError:
    """What it is instead, and the way from there."""
    keras = path.suffix in (".keras", ".h5") and path.is_file()
    if keras or (path / TRAINING).is_file():
        what = "Keras model" if keras else "checkpoint"
        return BundleError(f"{path} is a {what}; run: {export_line(path)}")
    if path.suffix == ".whl" and path.is_file():
        way = f"pip install {quote(str(path))}, then give its name, {path.name.partition('-')[0]}"
        return BundleError(f"{path} is a wheel; run: {way}")
    if path.is_file() and (path.parent / MANIFEST).is_file():
        return BundleError(f"{path} is a file of the bundle {path.parent}; give that folder")
    what = "is not a folder" if path.exists() else "does not exist"
    what = f"holds no {MANIFEST}" if path.is_dir() else what
    way = "expected a bundle as `steprnn export CHECKPOINT --out BUNDLE` writes it"
    return BundleError(f"{path} {what}; {way}")


def _artefacts(record: dict[str, Any]) -> tuple[Artefact, ...]:
    return tuple(Artefact(*(str(a[f.name]) for f in fields(Artefact))) for a in record["artefacts"])


def _start(record: dict[str, Any] | None) -> Start | None:
    return None if record is None else Start(StepSpec.from_record(record), _artefacts(record))
