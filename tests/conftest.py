"""What all tests share: the tiny bundle, its model on each engine, and its step in plain NumPy."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from steprnn.runtime import Model, load
from steprnn.runtime.bundle.manifest import FileRecord
from steprnn.runtime.files import MANIFEST

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # as the commands set it, before TensorFlow is loaded
os.environ.pop("PYTHONUNBUFFERED", None)  # users have a buffer, which must be flushed and may fail to be
settings.register_profile("steprnn", deadline=None)  # a busy machine is slow, not wrong
settings.load_profile("steprnn")

TINY = Path(__file__).parent / "tiny" / "bundle"


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The committed bundle; not to be written to."""
    return TINY


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    """A copy of the committed bundle, to damage."""
    return shutil.copytree(TINY, tmp_path / "tiny.bundle")


POISON = 5  # a token whose weights are NaN in `poisoned`


@pytest.fixture(scope="session")
def poisoned(tmp_path_factory: pytest.TempPathFactory, edit_manifest: Callable[..., None]) -> Path:
    """The committed bundle with NaN in the weights of one token, in both float32 graphs; its hashes fit."""
    onnx = pytest.importorskip("onnx")
    folder = shutil.copytree(TINY, tmp_path_factory.mktemp("poisoned") / "nan.bundle")
    arrays = map(onnx.numpy_helper.to_array, onnx.load(folder / "step.onnx").graph.initializer)
    (kernel,) = (array for array in arrays if array.shape == (21, 32))
    row, nan = kernel[POISON].tobytes(), np.full(32, np.nan, np.float32).tobytes()
    for name in ("step.onnx", "step.tflite"):
        data = (folder / name).read_bytes()
        assert data.count(row) == 1
        (folder / name).write_bytes(data.replace(row, nan))
    edit_manifest(folder)
    return folder


@pytest.fixture(scope="session")
def models() -> dict[str, Model]:
    """The tiny model by engine."""
    return {engine: load(TINY, engine=engine) for engine in ("litert", "onnx")}


@pytest.fixture(params=["litert", "onnx"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    """The tiny model; the test runs once on each engine."""
    return models[request.param]


class NumpyLSTM:
    """The step as the textbook has it, in float64, on the weights that the ONNX file holds."""

    def __init__(self, path: Path) -> None:
        onnx = pytest.importorskip("onnx")
        graph = onnx.load(path).graph
        arrays = {tuple(i.dims): onnx.numpy_helper.to_array(i).astype(np.float64) for i in graph.initializer}
        units, tokens = 8, 21
        self.kernel = arrays[tokens, 4 * units]
        self.recurrent = arrays[units, 4 * units]
        self.bias = arrays[(4 * units,)]
        self.dense = arrays[units, tokens]
        self.dense_bias = arrays[(tokens,)]

    def step(self, x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        """Tokens `[batch]`, h and c `[batch, units]` -> logits, next h, next c."""
        gates = self.kernel[x] + h @ self.recurrent + self.bias
        i, f, g, o = np.split(gates, 4, axis=-1)  # the order of the gates in Keras
        sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return h @ self.dense + self.dense_bias, h, c

    def chain(self, tokens: Any, h: Any = None, c: Any = None) -> dict[str, Any]:
        """Tokens `[steps, batch]` -> y, next_h and next_c, each `[steps, batch, ...]`."""
        h = np.zeros((tokens.shape[1], 8)) if h is None else h
        c = np.zeros((tokens.shape[1], 8)) if c is None else c
        rows = []
        for x in tokens:
            y, h, c = self.step(x, h, c)
            rows.append((y, h, c))
        return dict(zip(("y", "next_h", "next_c"), map(np.stack, zip(*rows, strict=True)), strict=True))


@pytest.fixture(scope="session")
def lstm() -> NumpyLSTM:
    """The tiny model in NumPy."""
    return NumpyLSTM(TINY / "step.onnx")


@pytest.fixture(scope="session")
def edit_manifest() -> Callable[..., None]:
    """Change manifest.json of a bundle by a function of its record, or record its files anew."""

    def edit(folder: Path, change: Callable[[dict[str, Any]], object] | None = None) -> None:
        path = folder / MANIFEST
        record = json.loads(path.read_text(encoding="utf-8"))
        if change is None:
            record["files"] = {name: vars(FileRecord.of(folder / name)) for name in record["files"]}
        else:
            change(record)
        path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")

    return edit


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB, to be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "steprnn", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False, text=True)
    except FileNotFoundError:
        pytest.skip("mount is not installed, so there is no small disk to fill")
    if mounted.returncode:
        pytest.skip(f"a small disk to fill cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The environment of a Python in which some modules cannot be found."""

    def environment(*modules: str) -> dict[str, str]:
        (tmp_path / "sitecustomize.py").write_text(
            f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n", encoding="utf-8"
        )
        paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    return environment


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder as `steprnn train` would write it: the tiny model's verse, with 32 units."""
    pytest.importorskip("keras")
    path = TINY.parent / "make.py"
    spec = importlib.util.spec_from_file_location("tiny_make", path)
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    source = make.tiny_source(units=32)
    folder = tmp_path_factory.mktemp("checkpoints") / "verse.checkpoint"
    folder.mkdir()
    source.model.save(folder / "model.keras")
    source.vocabulary.write(folder / "vocabulary.json")
    record = {"format": "steprnn.checkpoint", "version": 1, "corpus": {"name": "none"}, "settings": {}}
    (folder / "training.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def steprnn() -> Run:
    """Run the command in a process of its own, as a shell does."""

    def run(*argv: object, environment: Mapping[str, str] | None = None, **options: Any) -> Any:
        command = [str(Path(sys.executable).with_name("steprnn")), *map(str, argv)]
        options = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 300} | options
        return subprocess.run(command, env=environment, check=False, **options)

    return run


@pytest.fixture(scope="session")
def byte_checkpoint(tmp_path_factory: pytest.TempPathFactory, steprnn: Run) -> Path:
    """What `steprnn train --tokens bytes` makes of some lines in three scripts."""
    pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("bytes")
    corpus = folder / "corpus.txt"
    corpus.write_text("雨不停风不来 rain é 😀 " * 60, encoding="utf-8")
    flags = "--tokens bytes --units 32 --epochs 12 --batch 8 --window 32 --learning-rate 0.03".split()
    done = steprnn("train", "--corpus", corpus, "--out", folder / "checkpoint", *flags, "--prompts", "雨")
    assert done.returncode == 0, done.stderr
    return folder / "checkpoint"


@pytest.fixture(scope="session")
def byte_bundle(byte_checkpoint: Path, steprnn: Run) -> Path:
    """The bundle of it, for all engines that need no TensorFlow."""
    out = byte_checkpoint.with_name("bytes.bundle")
    formats = ("--formats", "onnx,tflite,program", "--quantize", "none")
    done = steprnn("export", byte_checkpoint, "--out", out, *formats)
    assert done.returncode == 0, done.stderr
    return out
