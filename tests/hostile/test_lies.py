"""Files that ask for more than they hold, or say what cannot be: each is refused in one line, and cheaply."""

from __future__ import annotations

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError, State, StateError, UsageError, load
from steprnn.runtime.bundle.manifest import FileRecord, Manifest
from steprnn.runtime.engines.loops import operators
from steprnn.runtime.files import GOLDEN, INITIAL, MANIFEST, VOCABULARY
from steprnn.runtime.parity.reference import Reference

Edit = Callable[..., None]
LARGE = 3 * 2**30  # more than a test may have


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    """A gigabyte more than there is in use now."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def bomb(name: str, shape: tuple[int, ...], dtype: str = "<f4", zeros: int = 0) -> bytes:
    """An .npz whose header promises a shape, with so many packed zeros behind it."""
    header = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w") as file,
    ):
        file.write(header.getvalue())
        chunk = bytes(2**20)
        for _ in range(zeros // 2**20):
            file.write(chunk)
    return buffer.getvalue()


def recorded(folder: Path, name: str, data: bytes, edit_manifest: Edit) -> Path:
    (folder / name).write_bytes(data)
    record = vars(FileRecord(len(data), FileRecord.of(folder / name).sha256))
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: record}))
    return folder


@pytest.mark.parametrize(
    ("shape", "zeros", "words"),
    [
        ((LARGE // 4,), 0, "'h' is float32 [805306368], expected float32 [8]"),
        ((8,), 300 * 2**20, "'h' has not as many values as its shape says"),
        ((8,), 0, "'h' has not as many values as its shape says"),
        ((-8,), 0, "'h' is float32 [-8], expected float32 [8]"),
    ],
)
def test_an_initial_state_that_is_none(
    tiny_copy: Path, edit_manifest: Edit, shape: tuple[int, ...], zeros: int, words: str
) -> None:
    recorded(tiny_copy, INITIAL, bomb("h", shape, zeros=zeros), edit_manifest)
    with pytest.raises(BundleError) as raised:
        load(tiny_copy)
    assert str(raised.value) == f"{tiny_copy / INITIAL} does not hold first states ({words}); export again"


def test_an_initial_state_that_is_not_finite(tiny_copy: Path, edit_manifest: Edit) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, c=np.full(8, np.nan, np.float32))
    recorded(tiny_copy, INITIAL, buffer.getvalue(), edit_manifest)
    with pytest.raises(BundleError, match="'c' is not finite"):
        load(tiny_copy)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bomb("input/x", (LARGE, 1), "<i4"), "of at most 65,536 steps"),
        (bomb("input/x", (256, LARGE), "<i4"), "at most 536,870,912 bytes"),
        (bomb("result/y", (256, 1, LARGE)), "expected at most 536,870,912 bytes of arrays"),
        (bomb("other", (1,)), "expected input/, result/, unit/ or state/ and a name"),
    ],
)
def test_a_recorded_run_that_is_none(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / GOLDEN).write_bytes(data)
    with pytest.raises(BundleError) as raised:
        Reference.read(tmp_path / GOLDEN)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "data",
    [
        bomb("h", (LARGE,)),
        bomb("h", (LARGE // 4,), zeros=2**22),
        bomb("h", (2**20,), zeros=2**22),  # as it says, and still more than its own bytes
        bomb("h", (1,), "|O"),
    ],
)
def test_a_state_that_unpacks_to_more_than_it_is(data: bytes) -> None:
    with pytest.raises(StateError, match="bytes are not a state"):
        State.from_bytes(data)


def test_a_corpus_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    corpus = pytest.importorskip("steprnn.train.corpus")
    path = tmp_path / "zeros.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(b"a" * 2**20)
    with pytest.raises(Exception, match=r"zeros\.txt\.gz unpacks to more than 268,435,456 bytes; if that is"):
        corpus.load(path)
    with (
        zipfile.ZipFile(tmp_path / "zeros.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.txt", "w") as text,
    ):
        for _ in range(300):
            text.write(b"a" * 2**20)
    with pytest.raises(Exception, match=r"zeros\.zip unpacks to more than 268,435,456 bytes"):
        corpus.load(tmp_path / "zeros.zip")


@pytest.mark.parametrize(
    "layer",
    [
        {"class_name": "LSTM", "config": {"name": "lstm", "units": 20_000}},
        {"class_name": "Embedding", "config": {"name": "embedding", "input_dim": 10**6, "output_dim": 10**4}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 10**9}},
    ],
)
def test_a_keras_file_without_the_weights_of_its_layers(tmp_path: Path, layer: dict[str, Any]) -> None:
    room = pytest.importorskip("steprnn.export.room")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
        archive.writestr("model.weights.h5", bytes(26_000))
    with pytest.raises(
        Exception, match=rf"{layer['config']['name']} has [\d,]+ weights or more, and the file"
    ):
        room.check_room(tmp_path / "m.keras")


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "model is no sha256": lambda r: r.update(model="x"),
    "about is no object": lambda r: r.update(about=[]),
    "step is no object": lambda r: r.update(step=[]),
    "states is no list": lambda r: r["step"].update(states={}),
    "the shape of h is [8.0]": lambda r: r["step"]["states"][0].update(shape=[8.0]),
    "the shape of h is [true]": lambda r: r["step"]["states"][0].update(shape=[True]),
    "the shape of h is [-8]": lambda r: r["step"]["states"][0].update(shape=[-8]),
    "the shape of h is [0]": lambda r: r["step"]["states"][0].update(shape=[0]),
    "the shape of c is [65536, 65536]": lambda r: r["step"]["states"][1].update(shape=[2**16, 2**16]),
    "h is 'float64', expected float32": lambda r: r["step"]["states"][0].update(dtype="float64"),
    "x is 'object', expected float32 or int32": lambda r: r["step"]["inputs"][0].update(dtype="object"),
    "tokens of x: -1": lambda r: r["step"]["inputs"][0].update(tokens=-1),
    "tokens of x: 'many'": lambda r: r["step"]["inputs"][0].update(tokens="many"),
    "static of x is no truth value": lambda r: r["step"]["inputs"][0].update(static=1),
    "a name stands twice among": lambda r: r["step"]["outputs"][0].update(name="h"),
    "a name stands twice among ": lambda r: r["step"]["outputs"][0].update(name="next_h"),
    "a step without inputs": lambda r: r["step"].update(inputs=[]),
    "artefacts is no list of graphs": lambda r: r.update(artefacts=[]),
    "the artefact tflite-float32 stands there twice": lambda r: r["artefacts"].append(r["artefacts"][0]),
    "the artefact 'mine' is of tflite float32": lambda r: r["artefacts"][0].update(name="mine"),
    "method of an artefact is None": lambda r: r["artefacts"][0].update(method=None),
    "'step.onnx' has -1 bytes": lambda r: r["files"]["step.onnx"].update(bytes=-1),
    "'step.onnx' has '7' bytes": lambda r: r["files"]["step.onnx"].update(bytes="7"),
    "'step.onnx' has the sha256 'x'": lambda r: r["files"]["step.onnx"].update(sha256="x"),
    "'STEP.onnx' stands there twice": lambda r: r["files"].update({"STEP.onnx": r["files"]["step.onnx"]}),
    "read_bytes of 'onnx-float32' is -1": lambda r: r.update(read_bytes={"onnx-float32": -1}),
    "scales is no object": lambda r: r.update(scales=[]),
    "scales of 'tflite-int16x8': h is -1.0": lambda r: r.update(scales={"tflite-int16x8": {"h": -1.0}}),
    "scales of 'tflite-int16x8': h comes back in another": lambda r: r.update(
        scales={"tflite-int16x8": {"h": 0.5, "next_h": 0.25}}
    ),
    "positions is no object": lambda r: r.update(positions=[]),
    "positions of tflite-int8 is no object": lambda r: r.update(positions={"tflite-int8": []}),
    "positions of tflite-int8 has other inputs than x, h, c": lambda r: r.update(
        positions={"tflite-int8": {"inputs": ["x", "h", "h"], "outputs": ["y", "next_h", "next_c"]}}
    ),
    "positions of tflite-int8 has other outputs than y, next_h, next_c": lambda r: r.update(
        positions={"tflite-int8": {"inputs": ["x", "h", "c"], "outputs": ["y", "next_h"]}}
    ),
}


@pytest.mark.parametrize("words", LIES)
def test_a_manifest_that_cannot_be(tiny_copy: Path, edit_manifest: Edit, words: str) -> None:
    edit_manifest(tiny_copy, LIES[words])
    with pytest.raises(BundleError) as raised:
        load(tiny_copy)
    told = words.strip().replace("[true]", "[True]")
    assert told in str(raised.value)
    assert str(raised.value).endswith("; export again")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": "steprnn.bundle", "version": true}', "has format version True and this steprnn reads 1"),
        ('{"format": "steprnn.bundle", "version": 1.0}', "has format version 1.0 and this steprnn reads 1"),
        ('{"format": 1, "format": 2}', "a name stands twice in an object"),
        ('{"format": NaN}', "NaN is no number of JSON"),
    ],
)
def test_json_that_two_readers_would_read_differently(tiny_copy: Path, text: str, words: str) -> None:
    (tiny_copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError) as raised:
        Manifest.read(tiny_copy)
    assert words in str(raised.value)


def test_a_manifest_of_a_gigabyte_is_not_read(tiny_copy: Path) -> None:
    with (tiny_copy / MANIFEST).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(BundleError, match=r"has 1,073,741,824 bytes, expected at most 67,108,864"):
        Manifest.read(tiny_copy)


@pytest.mark.parametrize("name", [MANIFEST, VOCABULARY, "step.onnx", "step.tflite"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tiny: Path, tiny_copy: Path, name: str) -> None:
    (tiny_copy / name).unlink()
    os.mkfifo(tiny_copy / name)
    code = (
        f"from steprnn.runtime import load\nfor e in ('onnx', 'litert'): load({str(tiny_copy)!r}, engine=e)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "BundleError" in ended.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["tokens"].pop(), "has 20 tokens and the model 21; export again"),
        (lambda r: r["tokens"].append("爱"), "has 22 tokens and the model 21; export again"),
        (lambda r: r["tokens"].__setitem__(0, "\ud800"), "half of a surrogate pair"),
        (lambda r: r.update(unit="word"), "unit is 'word', expected 'character'"),
    ],
)
def test_a_vocabulary_that_is_not_the_models(
    tiny_copy: Path, edit_manifest: Edit, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    record = json.loads((tiny_copy / VOCABULARY).read_text(encoding="utf-8"))
    change(record)
    recorded(tiny_copy, VOCABULARY, json.dumps(record).encode(), edit_manifest)
    with pytest.raises(BundleError) as raised:
        load(tiny_copy)
    assert words in str(raised.value)


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_a_state_that_the_manifest_does_not_list(tiny_copy: Path, edit_manifest: Edit, engine: str) -> None:
    """Nobody would ever clear it."""
    edit_manifest(tiny_copy, lambda record: record["step"]["states"].pop())
    with pytest.raises(BundleError, match="'c' is an input of the graph or of the manifest, and not of both"):
        load(tiny_copy, engine=engine)


def test_a_loop_of_a_huge_count_is_not_begun(tiny_copy: Path, edit_manifest: Edit) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    model = onnx.load(tiny_copy / "step.onnx")
    assert not {"Loop", "If"} & set(operators((tiny_copy / "step.onnx").read_bytes()))
    truth = helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []), truth],
        [helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(helper.make_tensor("most", onnx.TensorProto.INT64, [], [2**62]))
    model.graph.initializer.append(helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]))
    model.graph.node.append(helper.make_node("Loop", ["most", "yes"], [], body=body))
    recorded(tiny_copy, "step.onnx", model.SerializeToString(), edit_manifest)
    with pytest.raises(BundleError, match=r"step\.onnx holds Loop, and a step has no loop and no branch; do"):
        load(tiny_copy, engine="onnx")


def test_operators_are_those_that_onnx_reads(tiny: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for name in ("step.onnx", "step.int8.onnx"):
        nodes = onnx.load(tiny / name).graph.node
        assert sorted(operators((tiny / name).read_bytes())) == sorted(node.op_type for node in nodes)


@pytest.mark.parametrize("data", [b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 20, b"\x3f", b"\x3a\x05\x0a"])
def test_what_is_no_protobuf(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"a field|a number"):
        list(operators(data))


def test_a_graph_of_another_maker_that_would_be_huge(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    info, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    shape = [2**20, 2**20]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", real, shape)], [info("y", real, shape)])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "g.onnx")
    with pytest.raises(UsageError, match=r"'x' would be \[1048576, 1048576\]; expected at most 268,435,456"):
        load(tmp_path / "g.onnx", states={})


@pytest.mark.parametrize(
    "damage", [{"findings": 7}, {"findings": [7]}, {"findings": [{"level": "chained"}]}, {}]
)
def test_a_record_of_parity_that_is_damaged_is_told_by_the_packager(tiny_copy: Path, damage: Any) -> None:
    from steprnn.runtime.package.card import card

    record = json.loads((tiny_copy / "parity.json").read_text(encoding="utf-8")) | damage
    record["findings"] = damage.get(
        "findings", [{"level": "chained", "candidate": "onnx-float32 x", "figures": 1}]
    )
    (tiny_copy / "parity.json").write_text(json.dumps(record), encoding="utf-8")
    shown = tiny_copy, Manifest.read(tiny_copy), "name", "package", "onnx", None
    if damage == {"findings": [{"level": "chained"}]}:  # which has no figures to show
        assert "# name" in card(*shown)
    else:
        with pytest.raises(BundleError, match=r"parity\.json is damaged \("):
            card(*shown)


def test_a_graph_that_crashes_an_engine_is_refused_apart(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph is known that does, so that the other process ends itself where the engine would end it."""
    from steprnn.runtime import apart

    with pytest.raises(UsageError, match="engine 'x' is unknown"):
        load(tiny, engine="x", apart=True)
    assert load(tiny, apart=True).generate("分", 4) == load(tiny).generate("分", 4)
    monkeypatch.setattr(
        apart, "PROGRAM", apart.PROGRAM.replace("    load(", "    __import__('os').abort(); load(")
    )
    with pytest.raises(
        BundleError, match=r"bundle makes the engine crash \(-6\); do not trust it, or export"
    ):
        load(tiny, apart=True)


def test_a_split_in_other_parts_than_it_says(tiny_copy: Path, edit_manifest: Edit) -> None:
    """onnxruntime would end the process."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(tiny_copy / "step.onnx")
    (split,) = (node for node in model.graph.node if node.op_type == "Split")
    (number,) = (a for a in split.attribute if a.name == "num_outputs")
    assert number.i == 4
    number.i = 3
    recorded(tiny_copy, "step.onnx", model.SerializeToString(), edit_manifest)
    with pytest.raises(BundleError, match=r"step\.onnx splits a tensor in other parts than it says; do not"):
        load(tiny_copy, engine="onnx")
