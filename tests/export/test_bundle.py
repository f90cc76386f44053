"""What export writes: the documented files, graphs of the documented contract, and nothing unproven."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import ParityError, StateError, UsageError, Vocabulary, cli, load
from steprnn.runtime.bundle.manifest import FileRecord, Manifest
from steprnn.runtime.parity.profiles import PROFILES, Profile
from steprnn.runtime.parity.reference import Reference

keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")
tf = pytest.importorskip("tensorflow")

import steprnn.export.formats.onnx as onnx_format  # noqa: E402
from steprnn.export.bundle import export  # noqa: E402

FORBIDDEN = ("Loop", "Scan", "While", "If", "TensorList", "VarHandle", "VAR_HANDLE", "ReadVariable", "OneHot")
FILES = {
    "manifest.json",
    "vocabulary.json",
    "golden.npz",
    "parity.json",
    "step.onnx",
    "step.int8.onnx",
    "step.tflite",
    "step.int8.tflite",
}
SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables/variables.index"}


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All formats and variants of the checkpoint."""
    out = tmp_path_factory.mktemp("bundles") / "verse.bundle"
    said: list[str] = []
    export(checkpoint, out, say=said.append)
    assert said[0] == "step: x, h, c -> y, next_h, next_c"
    return out


def files(folder: Path) -> dict[str, FileRecord]:
    return {p.relative_to(folder).as_posix(): FileRecord.of(p) for p in folder.rglob("*") if p.is_file()}


def test_the_documented_files_and_nothing_else(bundle: Path) -> None:
    names = set(files(bundle))
    assert {n for n in names if "/" not in n} == FILES
    saved = {n.removeprefix("saved_model/") for n in names if "/" in n}
    assert saved >= SAVED_MODEL
    assert {n.partition("/")[0].partition(".")[0] for n in saved} <= {
        "saved_model",
        "fingerprint",
        "variables",
    }
    assert list(bundle.parent.iterdir()) == [bundle], "nothing stays beside it"


def test_the_manifest_has_every_file_and_its_hash(bundle: Path) -> None:
    manifest = Manifest.read(bundle)
    found = files(bundle)
    found.pop("manifest.json")
    assert manifest.files == found
    assert [a.name for a in manifest.artefacts] == [
        "saved_model-float32",
        "tflite-float32",
        "onnx-float32",
        "tflite-int8",
        "onnx-int8",
    ]
    assert manifest.positions.keys() == {"tflite-float32", "tflite-int8"}
    assert manifest.about["source"] == "verse.checkpoint"
    assert manifest.about["versions"]["keras"] == keras.__version__


def test_the_vocabulary_is_the_checkpoints(bundle: Path, checkpoint: Path) -> None:
    assert Vocabulary.read(bundle / "vocabulary.json") == Vocabulary.read(checkpoint / "vocabulary.json")


def test_another_model_has_another_hash(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Another for other weights, so that their states do not mix."""
    other = shutil.copytree(checkpoint, tmp_path / "other.checkpoint")
    model = keras.models.load_model(other / "model.keras")
    model.set_weights([w * 1.01 for w in model.get_weights()])
    model.save(other / "model.keras")
    manifest = export(other, tmp_path / "other.bundle", formats=("onnx",), variants=("float32",))
    assert manifest.model != Manifest.read(bundle).model
    with pytest.raises(StateError, match="this state belongs to model"):
        load(tmp_path / "other.bundle").session(load(bundle).session().state)


@pytest.mark.parametrize("name", ["step.onnx", "step.int8.onnx"])
def test_onnx(bundle: Path, name: str) -> None:
    model = onnx.load(bundle / name)
    onnx.checker.check_model(model, full_check=True)
    manifest = Manifest.read(bundle)
    properties = {p.key: p.value for p in model.metadata_props}
    assert json.loads(properties["steprnn.step"]) == manifest.step.to_record()
    variant = "int8" if "int8" in name else "float32"
    artefact = manifest.artefact("onnx", variant)
    assert artefact is not None
    assert properties["steprnn.variant"] == artefact.method

    def described(values: Any) -> list[tuple[str, list[Any]]]:
        return [(v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in values]

    assert described(model.graph.input) == [("x", ["batch"]), ("h", ["batch", 32]), ("c", ["batch", 32])]
    assert described(model.graph.output) == [
        ("y", ["batch", 21]),
        ("next_h", ["batch", 32]),
        ("next_c", ["batch", 32]),
    ]
    operators = [n.op_type for n in model.graph.node]
    assert not [o for o in operators if o.startswith(FORBIDDEN)]
    assert operators.count("MatMulNBits" if variant == "int8" else "MatMul") == 2
    assert operators.count("Gather") == (2 if variant == "int8" else 1), "the one-hot product is a gather"
    domains = {n.domain for n in model.graph.node}
    assert domains == ({"", "com.microsoft"} if variant == "int8" else {""})


@pytest.mark.parametrize("name", ["step.tflite", "step.int8.tflite"])
def test_tflite(bundle: Path, name: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(bundle / name))
    assert interpreter.get_signature_list() == {
        "step": {"inputs": ["c", "h", "x"], "outputs": ["next_c", "next_h", "y"]}
    }
    runner = interpreter.get_signature_runner("step")
    details = runner.get_input_details() | runner.get_output_details()
    assert {n: (d["shape"].tolist(), d["dtype"]) for n, d in details.items()} == {
        "x": ([1], np.int32),
        "h": ([1, 32], np.float32),
        "c": ([1, 32], np.float32),
        "y": ([1, 21], np.float32),
        "next_h": ([1, 32], np.float32),
        "next_c": ([1, 32], np.float32),
    }
    operators = {o["op_name"] for o in interpreter._get_ops_details()} - {"DELEGATE"}
    assert "GATHER" in operators
    forbidden = (
        "WHILE",
        "IF",
        "CALL",
        "VAR_HANDLE",
        "READ_VARIABLE",
        "ONE_HOT",
        "CUSTOM",
        "Flex",
        "BATCH_MATMUL",
    )
    assert not [o for o in operators if o.startswith(forbidden)]


def test_the_int8_files_hold_their_weights_in_int8(bundle: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(bundle / "step.int8.tflite"))
    kinds = {tuple(t["shape"]): t["dtype"] for t in interpreter.get_tensor_details()}
    assert kinds[128, 32] == np.int8, "the recurrent kernel"
    graph = onnx.load(bundle / "step.int8.onnx").graph
    eight = [i for i in graph.initializer if i.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)]
    assert len(eight) == 3, "the kernel's rows, the recurrent kernel and the head"
    assert (bundle / "step.int8.tflite").stat().st_size < (bundle / "step.tflite").stat().st_size


def test_what_is_widened_at_load_is_read_as_it_is_stored(checkpoint: Path, tmp_path: Path) -> None:
    """A row of the kernel, the recurrent kernel and the head, with their scales, and biases as they are."""
    pytest.importorskip("ai_edge_litert")
    from steprnn.export.inspect import inspect

    variants, formats = ("float32", "float16", "int8-weights"), ("tflite", "onnx")
    manifest = export(checkpoint, tmp_path / "b", formats=formats, variants=variants)
    gates, units, tokens = 4 * 32, 32, 21
    weights, biases = gates + units * gates + units * tokens, gates + tokens
    expected = {
        "float32": 4 * weights + 4 * biases,
        "float16": 2 * weights + 2 * biases,
        "int8-weights": weights + 4 * (1 + gates + tokens) + 4 * biases,
    }
    assert len(manifest.artefacts) == 5, "TFLite has no int8-weights"
    for artefact in manifest.artefacts:
        assert manifest.read_bytes[artefact.name] == expected[artefact.variant], artefact.name
        found = inspect(tmp_path / "b" / artefact.path).weights
        assert found is not None
        assert found.per_step == expected[artefact.variant], artefact.name


def test_saved_model(bundle: Path) -> None:
    loaded = tf.saved_model.load(str(bundle / "saved_model"))
    assert list(loaded.signatures) == ["step"]
    step = loaded.signatures["step"]
    described = {t.name: t.shape.as_list() for t in step.structured_input_signature[1].values()}
    assert described == {"x": [None], "h": [None, 32], "c": [None, 32]}
    assert {n: t.shape.as_list() for n, t in step.structured_outputs.items()} == {
        "y": [None, 21],
        "next_h": [None, 32],
        "next_c": [None, 32],
    }
    nodes = [*step.graph.as_graph_def().node]
    nodes += [n for f in step.graph.as_graph_def().library.function for n in f.node_def]
    kinds = {n.op for n in nodes}
    assert "GatherV2" in kinds
    assert not [k for k in kinds if k.startswith(FORBIDDEN)]
    assert loaded.signatures["step"].variables == ()
    rows = {n: tf.random.stateless_normal((5, 32), (0, i)) for i, n in enumerate("hc")}
    tokens = tf.constant([3, 0, 20, 7, 3], tf.int32)
    together = step(x=tokens, **rows)
    for row in range(5):
        alone = step(x=tokens[row : row + 1], **{n: t[row : row + 1] for n, t in rows.items()})
        for name, tensor in together.items():
            np.testing.assert_allclose(tensor[row], alone[name][0], rtol=0, atol=5e-6)


def test_the_record_of_parity_has_a_chained_run_of_1024_steps_for_each(bundle: Path) -> None:
    record = json.loads((bundle / "parity.json").read_text(encoding="utf-8"))
    assert (record["format"], record["version"]) == ("steprnn.parity", 1)
    assert record["conditions"]["versions"]["tensorflow"] == tf.__version__
    assert record["passed"] is True
    assert all(finding["passed"] for finding in record["findings"])
    engines = {"saved_model": "tensorflow", "tflite": "litert", "onnx": "onnx"}
    for artefact in Manifest.read(bundle).artefacts:
        candidate = f"{artefact.name} in {engines[artefact.format]}"
        runs = {
            finding["level"].partition(",")[0]: finding["figures"]
            for finding in record["findings"]
            if finding["candidate"] == candidate
        }
        assert runs.keys() >= {"one step", "chained", "batch", "free run", "semantics"}
        measured = runs["chained"]
        assert (measured["steps"], measured["failures"]) == (1024, [])
        assert set(measured["units"]) == {"y", "next_h", "next_c"}
        if artefact.variant == "float32":
            assert 0 < max(measured["units"].values()) <= 8
        else:
            assert max(measured["units"].values()) > 100, "int8 weights are not float32 ones"
            assert 0 < measured["mean_kl"] <= 1e-2


def test_the_golden_trajectory_is_what_the_keras_model_says(bundle: Path, checkpoint: Path) -> None:
    golden = Reference.read(bundle / "golden.npz")
    assert golden.inputs["x"].shape == (256, 1)
    model = keras.models.load_model(checkpoint / "model.keras")
    logits, h, c = model.predict(golden.inputs["x"].T, verbose=0)
    np.testing.assert_allclose(golden.results["y"][:, 0], logits[0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(golden.results["next_h"][-1], h, rtol=0, atol=5e-6)
    np.testing.assert_allclose(golden.results["next_c"][-1], c, rtol=0, atol=5e-6)


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_each_engine_says_what_the_keras_model_says(bundle: Path, checkpoint: Path, engine: str) -> None:
    """Not by way of the parity code: the whole sequence at once, against one step at a time."""
    model = keras.models.load_model(checkpoint / "model.keras")
    tokens = np.random.default_rng(0).integers(0, 21, (3, 60)).astype(np.int32)
    logits, h, c = model.predict(tokens, verbose=0)
    session = load(bundle, engine=engine).session(batch=3)
    steps = np.stack([session.step(x) for x in tokens.T], axis=1)
    np.testing.assert_allclose(steps, logits, rtol=0, atol=2e-5)
    np.testing.assert_allclose(session.state.tensors["h"], h, rtol=0, atol=5e-6)
    np.testing.assert_allclose(session.state.tensors["c"], c, rtol=0, atol=5e-6)


def test_check_passes_it(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(bundle)]) == 0
    assert capfd.readouterr().out.count("  passed") == 4


def nudge(path: Path) -> None:
    """A weight that is off by a thousandth."""
    model = onnx.load(path)
    bias = next(i for i in model.graph.initializer if tuple(i.dims) == (128,))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[64] += 0.001
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, path)


def swap_next_states(path: Path) -> None:
    """The commonest silent bug: h and c have the same shape."""
    model = onnx.load(path)
    other = {"next_h": "next_c", "next_c": "next_h"}
    for node in model.graph.node:
        node.input[:] = [other.get(n, n) for n in node.input]
        node.output[:] = [other.get(n, n) for n in node.output]
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("spoil", "name", "told"),
    [
        (nudge, "tiny.bundle", " differs in 1 of 128 elements, the first at [64]: got "),
        (swap_next_states, "new.bundle", "at the level 'one step': it looks as if h and c are swapped "),
    ],
)
def test_an_artefact_that_fails_leaves_all_as_it_was(
    checkpoint: Path,
    tiny_copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    name: str,
    told: str,
) -> None:
    """The file is spoilt after it was written, and before it is judged."""
    write = onnx_format.write

    def spoilt(step: Any, path: Path, variant: str) -> Any:
        result = write(step, path, variant)
        spoil(path)
        return result

    monkeypatch.setattr(onnx_format, "write", spoilt)
    before = files(tiny_copy.parent)
    with pytest.raises(ParityError) as raised:
        export(checkpoint, tiny_copy.parent / name, formats=("onnx",), variants=("float32",))
    words = str(raised.value)
    assert words.startswith("onnx-float32 in onnx fails")
    assert told in words
    assert files(tiny_copy.parent) == before
    assert not (tiny_copy.parent / "new.bundle").exists()


def test_int8_that_does_not_pass_is_left_out_unless_it_was_asked_for(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROFILES, "int8", Profile(mean_kl=1e-12))
    said: list[str] = []
    options = {"formats": ("onnx", "tflite"), "chained_steps": 64, "golden_steps": 16}
    manifest = export(checkpoint, tmp_path / "b", say=said.append, **options)
    assert [a.name for a in manifest.artefacts] == ["onnx-float32", "tflite-float32"]
    assert sorted(p.name for p in (tmp_path / "b").glob("step.*")) == ["step.onnx", "step.tflite"]
    assert set(manifest.about["left_out"]) == {"onnx-int8", "tflite-int8"}
    (told,) = (line for line in said if line.startswith("left out onnx-int8: "))
    assert "mean KL divergence is" in told
    assert "expected at most 1e-12" in told
    with pytest.raises(ParityError, match=r"expected at most 1e-12.*leave int8 out of --quantize$"):
        export(checkpoint, tmp_path / "c", variants=("float32", "int8"), **options)
    assert not (tmp_path / "c").exists()


def test_it_replaces_a_bundle_whole(bundle: Path, checkpoint: Path, tiny_copy: Path) -> None:
    """A file of the old one that the new one does not have is gone; the same model has the same hash."""
    manifest = export(checkpoint, tiny_copy, formats=("onnx",), variants=("float32",))
    assert [a.name for a in manifest.artefacts] == ["onnx-float32"]
    assert set(files(tiny_copy)) == FILES - {"step.int8.onnx", "step.tflite", "step.int8.tflite"}
    assert manifest.step.states[0].shape == (32,)
    assert Manifest.read(tiny_copy) == manifest
    assert manifest.model == Manifest.read(bundle).model


def test_it_refuses_to_replace_anything_else(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis").write_bytes(b"1")
    with pytest.raises(
        UsageError, match="folder exists and is not a bundle; choose another --out, nothing was"
    ):
        export(checkpoint, tmp_path / "folder")
    assert list(files(tmp_path)) == ["folder/thesis"]


def test_a_given_text_is_what_the_chained_run_reads(checkpoint: Path, tmp_path: Path) -> None:
    text = "分开不爱" * 400  # one of the four is unknown and left out
    export(checkpoint, tmp_path / "b", formats=("onnx",), variants=("float32",), text=text)
    expected = Vocabulary.read(checkpoint / "vocabulary.json").encode("分开不" * 100)[:256]
    assert Reference.read(tmp_path / "b" / "golden.npz").inputs["x"][:, 0].tolist() == expected


def test_a_bare_keras_file_gives_a_bundle_without_a_vocabulary(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint / "model.keras", tmp_path / "b", formats=("onnx",), variants=("float32",))
    assert not (tmp_path / "b" / "vocabulary.json").exists()
    model = load(tmp_path / "b")
    assert model.vocabulary is None
    assert model.session().step(3).shape == (1, 21)
    with pytest.raises(UsageError, match="the bundle has no vocabulary"):
        model.generate("分开")
    with pytest.raises(UsageError, match="a text needs a vocabulary, and a bare Keras file has none"):
        export(checkpoint / "model.keras", tmp_path / "c", text="分开" * 1000)
