"""manifest.json: what it says reads back equal, and every damage to a bundle is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError, load
from steprnn.runtime.bundle.manifest import FileRecord, Manifest
from steprnn.runtime.files import INITIAL, MANIFEST
from steprnn.runtime.origin import upgrade

Edit = Callable[..., None]
HOSTILE = json.loads((Path(__file__).parents[2] / "hostile_names.json").read_text(encoding="utf-8"))
FILES = ("vocabulary.json", "step.tflite", "step.onnx", "step.int8.tflite", "step.int8.onnx")


def open_all(folder: Path) -> None:
    """Open everything that the runtime reads of the tiny bundle."""
    for engine in ("litert", "onnx"):
        for variant in ("float32", "int8"):
            load(folder, engine=engine, variant=variant)


def refusal(folder: Path) -> str:
    """The words with which the bundle is refused."""
    with pytest.raises(BundleError) as raised:
        open_all(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_it_reads_back_equal(tiny: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(tiny)
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest


def test_it_says_what_the_bundle_holds(tiny: Path) -> None:
    manifest = Manifest.read(tiny)
    assert [t.name for t in manifest.step.inputs] == ["x"]
    assert [(t.name, t.shape) for t in manifest.step.states] == [("h", (8,)), ("c", (8,))]
    assert [(t.name, t.dtype, t.shape) for t in manifest.step.outputs] == [("y", "float32", (21,))]
    assert manifest.step.result_names == ("y", "next_h", "next_c")
    assert [a.name for a in manifest.artefacts] == [
        "tflite-float32",
        "onnx-float32",
        "tflite-int8",
        "onnx-int8",
    ]
    artefact = manifest.artefact("onnx", "int8")
    assert artefact is not None
    assert artefact.path == "step.int8.onnx"
    assert manifest.size_of(artefact) == (tiny / "step.int8.onnx").stat().st_size
    assert manifest.artefact("saved_model", "float32") is None


def test_what_a_step_reads_is_told_by_name_and_not_by_older_bundles(
    tiny_copy: Path, edit_manifest: Edit
) -> None:
    edit_manifest(tiny_copy, lambda record: record.update(read_bytes={"onnx-float32": 12, "onnx-int8": 3}))
    assert Manifest.read(tiny_copy).read_bytes == {"onnx-float32": 12, "onnx-int8": 3}
    edit_manifest(tiny_copy, lambda record: record.pop("read_bytes"))
    assert Manifest.read(tiny_copy).read_bytes == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.pop("model"), "KeyError: 'model'"),
        (
            lambda record: record["step"]["states"][0].update(next="next_c"),
            "ValueError: a state's next name is not next_<name>",
        ),
        (lambda record: record.update(about=None), "ValueError: about is no object"),
    ],
)
def test_damage_in_words(
    tiny_copy: Path, edit_manifest: Edit, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit_manifest(tiny_copy, change)
    assert refusal(tiny_copy) == f"{tiny_copy / MANIFEST} is damaged ({words}); export again"


def test_an_undamaged_copy_opens(tiny_copy: Path) -> None:
    open_all(tiny_copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).unlink()
    assert refusal(tiny_copy) == f"{tiny_copy / name} is missing; copy the bundle again"


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(tiny_copy: Path, name: str) -> None:
    path = tiny_copy / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(tiny_copy) == f"{path} has {size - 1:,} bytes, expected {size:,}; copy the bundle again"


@pytest.mark.parametrize("name", FILES)
def test_an_altered_byte(tiny_copy: Path, name: str) -> None:
    path = tiny_copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert refusal(tiny_copy) == (
        f"{path} was altered: its sha256 is not the manifest's; copy the bundle again"
    )


def test_a_folder_where_a_file_should_be(tiny_copy: Path) -> None:
    (tiny_copy / "step.onnx").unlink()
    (tiny_copy / "step.onnx").mkdir()
    assert refusal(tiny_copy) == f"{tiny_copy / 'step.onnx'} is missing; copy the bundle again"


@pytest.mark.parametrize(
    ("name", "engine", "words"),
    [("step.tflite", "litert", "steprnn refuses"), ("step.onnx", "onnx", "onnxruntime")],
)
def test_a_graph_that_the_engine_refuses(
    tiny_copy: Path, edit_manifest: Edit, name: str, engine: str, words: str
) -> None:
    (tiny_copy / name).write_bytes(b"not a graph")
    edit_manifest(tiny_copy)
    with pytest.raises(BundleError) as raised:
        load(tiny_copy, engine=engine)
    assert str(raised.value).startswith(words)
    assert f"refuses {tiny_copy / name}" in str(raised.value)


@pytest.mark.parametrize("version", [3, 0, None, "1", True])
def test_another_format_version(tiny_copy: Path, edit_manifest: Edit, version: object) -> None:
    edit_manifest(tiny_copy, lambda record: record.update(version=version))
    assert refusal(tiny_copy) == (
        f"{tiny_copy / MANIFEST} has format version {version!r} and this steprnn reads 1 and 2; {upgrade()}"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000])
def test_a_manifest_that_is_not_json(tiny_copy: Path, content: bytes) -> None:
    (tiny_copy / MANIFEST).write_bytes(content)
    words = refusal(tiny_copy)
    assert words.startswith(f"{tiny_copy / MANIFEST} is not JSON (")
    assert words.endswith("); copy the bundle again")


@pytest.mark.parametrize("record", [[], "text", {}, {"format": "something.else", "version": 1}])
def test_a_manifest_of_something_else(tiny_copy: Path, record: object) -> None:
    (tiny_copy / MANIFEST).write_text(json.dumps(record), encoding="utf-8")
    words = refusal(tiny_copy)
    assert words == f'{tiny_copy / MANIFEST} is not of a bundle: expected "format": "steprnn.bundle"'


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("model"),
        lambda record: record.pop("step"),
        lambda record: record["step"].pop("states"),
        lambda record: record["step"].update(states="h, c"),
        lambda record: record["step"]["states"][0].update(next="next_c"),
        lambda record: record["artefacts"][0].pop("path"),
        lambda record: record.update(artefacts=3),
        lambda record: record.update(files=["step.onnx"]),
        lambda record: record["files"]["step.onnx"].update(bytes="many"),
        lambda record: record["files"]["step.onnx"].pop("sha256"),
        lambda record: record.update(about=None),
    ],
)
def test_a_manifest_that_lacks_something(
    tiny_copy: Path, edit_manifest: Edit, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_manifest(tiny_copy, change)
    words = refusal(tiny_copy)
    assert words.startswith(f"{tiny_copy / MANIFEST} is damaged (")
    assert words.endswith("; export again")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_outside_the_bundle(tiny_copy: Path, edit_manifest: Edit, name: str) -> None:
    edit_manifest(tiny_copy, lambda record: record["files"].update({name: {"bytes": 1, "sha256": ""}}))
    assert refusal(tiny_copy) == (
        f"{tiny_copy / MANIFEST} names the file {name!r}, outside the bundle; do not trust it"
    )


@pytest.mark.parametrize("path", ["../step.onnx", "/etc/hostname", "", ".", "unlisted.onnx"])
def test_an_artefact_whose_hash_is_not_recorded(tiny_copy: Path, edit_manifest: Edit, path: str) -> None:
    """Otherwise there would be nothing to verify, and the graph would be opened as it is."""
    shutil.copy(tiny_copy / "step.onnx", tiny_copy / "unlisted.onnx")
    shutil.copy(tiny_copy / "step.onnx", tiny_copy.parent / "step.onnx")
    edit_manifest(tiny_copy, lambda record: record["artefacts"][1].update(path=path))
    assert refusal(tiny_copy) == f"{tiny_copy / MANIFEST} lists no file of onnx-float32; do not trust it"


def test_what_is_no_bundle(tmp_path: Path) -> None:
    expected = "expected a bundle as `steprnn export CHECKPOINT --out BUNDLE` writes it"
    assert refusal(tmp_path / "absent") == f"{tmp_path / 'absent'} does not exist; {expected}"
    assert refusal(tmp_path) == f"{tmp_path} holds no manifest.json; {expected}"
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    assert refusal(file) == f"{file} is not a folder; {expected}"


def with_initial(folder: Path, edit_manifest: Edit, **arrays: Any) -> Manifest:
    """The bundle with an initial.npz that its manifest lists."""
    np.savez(folder / INITIAL, **arrays)
    record = vars(FileRecord.of(folder / INITIAL))
    edit_manifest(folder, lambda manifest: manifest["files"].update({INITIAL: record}))
    return Manifest.read(folder)


def test_a_stream_begins_at_zero(tiny: Path) -> None:
    state = Manifest.read(tiny).initial_state(tiny)
    assert {n: (a.dtype, a.tolist()) for n, a in state.items()} == {
        "h": (np.float32, [0.0] * 8),
        "c": (np.float32, [0.0] * 8),
    }


def test_a_stream_begins_at_what_initial_npz_holds(tiny_copy: Path, edit_manifest: Edit) -> None:
    c = np.arange(8, dtype=np.float32)
    state = with_initial(tiny_copy, edit_manifest, c=c).initial_state(tiny_copy)
    assert {n: a.tolist() for n, a in state.items()} == {"h": [0.0] * 8, "c": c.tolist()}


def test_an_initial_npz_that_was_altered_is_not_opened(tiny_copy: Path, edit_manifest: Edit) -> None:
    manifest = with_initial(tiny_copy, edit_manifest, c=np.ones(8, np.float32))
    path = tiny_copy / INITIAL
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BundleError) as raised:
        manifest.initial_state(tiny_copy)
    assert str(raised.value) == (
        f"{path} was altered: its sha256 is not the manifest's; copy the bundle again"
    )


def test_an_initial_npz_with_python_objects_is_not_run(tiny_copy: Path, edit_manifest: Edit) -> None:
    class Program:
        def __reduce__(self) -> Any:
            return Path.touch, (tiny_copy / "was here",)

    manifest = with_initial(tiny_copy, edit_manifest, c=np.array([Program()], object))
    with pytest.raises(BundleError, match=r"does not hold first states \(an array of object\); export again"):
        manifest.initial_state(tiny_copy)
    assert not (tiny_copy / "was here").exists()


def test_verify_asks_for_a_record_of_every_file(tiny: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json does not list other\.bin; export again"):
        Manifest.read(tiny).verify(tiny, ["other.bin"])


def test_a_file_record_is_size_and_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert FileRecord.of(tmp_path / "file") == FileRecord(
        3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
