"""Step graphs of other makers: real ones, made on the spot, against NumPy; and every word of a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from steprnn.runtime import BundleError, Model, State, StateError, UsageError, load
from steprnn.runtime.bundle.manifest import FileRecord
from steprnn.runtime.engines.litert import DynamicRunner
from steprnn.runtime.foreign import load_graph
from steprnn.runtime.pairing import Declared, pairs_by_name

tf = pytest.importorskip("tensorflow")  # writes the TFLite files

UNITS, WIDTH = 128, 64
GENERATOR = np.random.default_rng(0)
WEIGHTS = {
    "W": GENERATOR.normal(0, 0.2, (1, 4 * UNITS, WIDTH)).astype(np.float32),
    "R": GENERATOR.normal(0, 0.1, (1, 4 * UNITS, UNITS)).astype(np.float32),
    "B": GENERATOR.normal(0, 0.1, (1, 8 * UNITS)).astype(np.float32),
    "P": GENERATOR.normal(0, 0.2, (UNITS, 1)).astype(np.float32),
}
FRAMES = GENERATOR.normal(0, 1, (60, 1, WIDTH)).astype(np.float32)
STATES, CONSTANTS = {"state": "stateN"}, {"sr": 16000}


def info(name: str, dtype: int, shape: list[Any]) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]
) -> Path:
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def vad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Silero's shape: h and c in one state `[2, batch, 128]`, and the sample rate as an int64 scalar."""
    node = helper.make_node
    nodes = [
        node("Unsqueeze", ["input", "axis"], ["sequence"]),
        node("Split", ["state"], ["h", "c"], axis=0, num_outputs=2),
        node("LSTM", ["sequence", "W", "R", "B", "", "h", "c"], ["", "hn", "cn"], hidden_size=UNITS),
        node("Concat", ["hn", "cn"], ["stateN"], axis=0),
        node("Squeeze", ["hn", "axis"], ["hidden"]),
        node("MatMul", ["hidden", "P"], ["logit"]),
        node("Sigmoid", ["logit"], ["probability"]),
        node("Cast", ["sr"], ["rate"], to=TensorProto.FLOAT),
        node("Div", ["rate", "standard"], ["factor"]),
        node("Mul", ["probability", "factor"], ["output"]),
    ]
    inputs = [
        info("input", TensorProto.FLOAT, [None, WIDTH]),
        info("state", TensorProto.FLOAT, [2, None, UNITS]),
        info("sr", TensorProto.INT64, []),
    ]
    outputs = [
        info("output", TensorProto.FLOAT, [None, 1]),
        info("stateN", TensorProto.FLOAT, [None, None, None]),
    ]
    weights = WEIGHTS | {"axis": np.array([0]), "standard": np.array(16000, np.float32)}
    return save(tmp_path_factory.mktemp("vad") / "vad.onnx", nodes, inputs, outputs, weights)


class NumpyVad:
    """The same step in float64; ONNX has the gates in the order i, o, f, c and two bias rows."""

    def __init__(self, rows: int = 1) -> None:
        self.state = np.zeros((2, rows, UNITS))

    def step(self, x: Any) -> Any:
        h, c = self.state
        w, r, b = (WEIGHTS[name][0].astype(np.float64) for name in "WRB")
        gates = x @ w.T + h @ r.T + b[: 4 * UNITS] + b[4 * UNITS :]
        i, o, f, g = np.split(gates, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        self.state = np.stack([h, c])
        return sigmoid(h @ WEIGHTS["P"])


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


KERNEL = np.array([[0.5, -0.4, 0.3], [0.2, 0.7, -0.6]], np.float32)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFLite step by hand: two states of one shape, a scalar constant, an output that is a next state."""

    @tf.function
    def step(x: Any, h_in: Any, c_in: Any, gain: Any) -> dict[str, Any]:
        c = 0.9 * c_in + gain * tf.matmul(x, KERNEL) + 0.1 * h_in
        h = tf.tanh(c)
        return {"y": h, "h_out": h, "c_out": c}

    names = {"x": [1, 2], "h_in": [1, 3], "c_in": [1, 3], "gain": []}
    signature = step.get_concrete_function(**{n: tf.TensorSpec(s, name=n) for n, s in names.items()})
    return write_tflite(tmp_path_factory.mktemp("leaky") / "leaky.tflite", signature)


def write_tflite(path: Path, function: Any) -> Path:
    folder = path.with_suffix("")
    tf.saved_model.save(tf.Module(), str(folder), signatures={"theirs": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["theirs"])
    path.write_bytes(converter.convert())
    return path


LEAKY = {"states": {"h_in": "h_out", "c_in": "c_out"}, "constants": {"gain": 2}}


# What runs


def test_an_onnx_step_with_a_state_of_its_own_shape_is_numpys(vad: Path) -> None:
    model = load(vad, states=STATES, constants=CONSTANTS)
    assert model.engine == "onnx"
    assert [(t.name, t.dtype, t.shape) for t in model.manifest.step.inputs] == [
        ("input", "float32", (1, WIDTH))
    ]
    assert model.manifest.step.result_names == ("output", "stateN")
    session, expected = model.session(), NumpyVad()
    for t, frame in enumerate(FRAMES):
        y = session.step(frame)
        np.testing.assert_allclose(y, expected.step(frame), rtol=0, atol=1e-5, err_msg=f"step {t}")
        np.testing.assert_allclose(session.state.tensors["state"], expected.state, rtol=0, atol=1e-5)
    assert session.state.tensors["state"].shape == (2, 1, UNITS)


def test_its_one_graph_is_every_variant_that_may_be_asked_for(vad: Path) -> None:
    for variant in ("auto", "float32"):
        model = load(vad, states=STATES, constants=CONSTANTS, variant=variant)
        assert model.artefact.variant == "float32"
    assert repr(model) == f"<Model {model.manifest.model[:8]} onnx float32: input -> output, 1 state>"
    assert repr(model.session()) == f"<Session of model {model.manifest.model[:8]}, batch 1>"


def test_a_graph_is_loaded_into_parts_with_names(leaky: Path) -> None:
    graph = load_graph(leaky, "auto", "auto", 1, LEAKY["states"], LEAKY["constants"], None)
    assert (graph.engine, graph.artefact.name) == ("litert", "leaky.tflite")
    assert [t.name for t in graph.manifest.step.states] == list(graph.initial_state) == ["h_in", "c_in"]
    assert graph.opened.runner(1).inputs["gain"] == 2


def test_a_constant_reaches_every_step(vad: Path) -> None:
    full, half = (load(vad, states=STATES, constants={"sr": sr}).session() for sr in (16000, 8000))
    for frame in FRAMES[:5]:
        np.testing.assert_allclose(half.step(frame), full.step(frame) / 2, rtol=1e-6)


def test_without_constants_the_caller_gives_every_input(vad: Path) -> None:
    given = load(vad, states=STATES).session()
    fixed = load(vad, states=STATES, constants=CONSTANTS).session()
    for frame in FRAMES[:5]:
        np.testing.assert_array_equal(given.step({"input": frame, "sr": 16000}), fixed.step(frame))
    with pytest.raises(UsageError, match=r"got inputs \['input'\], expected \['input', 'sr'\]"):
        given.step(FRAMES[0])
    with pytest.raises(UsageError, match=r"input 'sr' has dtype float64, expected whole numbers \(int64\)"):
        given.step({"input": FRAMES[0], "sr": 16000.0})


def test_free_dimensions_are_told_by_shapes(vad: Path) -> None:
    shapes = {"input": [3, WIDTH], "state": [2, 3, UNITS]}
    session = load(vad, states=STATES, constants=CONSTANTS, shapes=shapes).session()
    expected, frames = NumpyVad(3), FRAMES.reshape(20, 3, WIDTH)
    for frame in frames:
        np.testing.assert_allclose(session.step(frame), expected.step(frame), rtol=0, atol=1e-5)
    assert session.state.tensors["state"].shape == (2, 3, UNITS)


def test_a_tflite_step_is_numpys(leaky: Path) -> None:
    model = load(leaky, **LEAKY)
    assert model.engine == "litert"
    session = model.session()
    h = c = np.zeros((1, 3))
    for x in FRAMES[:, :, :2]:
        c = 0.9 * c + 2 * (x @ KERNEL) + 0.1 * h
        h = np.tanh(c)
        np.testing.assert_allclose(session.step(x), h, rtol=0, atol=1e-5)
        np.testing.assert_allclose(session.state.tensors["h_in"], h, rtol=0, atol=1e-5)
        np.testing.assert_allclose(session.state.tensors["c_in"], c, rtol=0, atol=1e-5)


def test_states_that_only_change_places_are_not_overwritten(tmp_path: Path) -> None:
    """TFLite hands an input through without a copy, so the next state of one is the memory of the other."""

    @tf.function
    def step(x: Any, a: Any, b: Any) -> dict[str, Any]:
        return {"y": x + a, "a_next": b, "b_next": x + 0.0 * a}

    function = step.get_concrete_function(**{n: tf.TensorSpec([2], name=n) for n in ("x", "a", "b")})
    model = load(write_tflite(tmp_path / "delay.tflite", function), states={"a": "a_next", "b": "b_next"})
    with model.runner() as runner:
        assert isinstance(runner, DynamicRunner)
    session = model.session()
    delayed = [session.step(np.full(2, t)).tolist() for t in range(1, 6)]
    assert delayed == [[t + max(0, t - 2)] * 2 for t in range(1, 6)]


def test_a_graph_of_other_dtypes(tmp_path: Path) -> None:
    """Counts in int64, a truth value, and doubles, through onnxruntime's buffers."""
    node = helper.make_node
    nodes = [
        node("Add", ["count", "by"], ["new_count"]),
        node("Cast", ["new_count"], ["double"], to=TensorProto.DOUBLE),
        node("Where", ["halve", "half", "one"], ["factor"]),
        node("Mul", ["double", "factor"], ["y"]),
    ]
    inputs = [
        info("by", TensorProto.INT64, [2]),
        info("count", TensorProto.INT64, [2]),
        info("halve", TensorProto.BOOL, []),
    ]
    outputs = [info("new_count", TensorProto.INT64, [2]), info("y", TensorProto.DOUBLE, [2])]
    path = save(
        tmp_path / "count.onnx", nodes, inputs, outputs, {"half": np.array(0.5), "one": np.array(1.0)}
    )
    session = load(path, states={"count": "new_count"}).session()
    for t in range(1, 4):
        y = session.step({"by": [1, 2], "halve": t == 2})
        assert y.dtype == np.float64
        assert y.tolist() == ([1.0, 2.0] if t == 2 else [t, 2 * t])
    assert session.state.tensors["count"].dtype == np.int64
    with pytest.raises(UsageError, match=r"input 'halve' has dtype int64, expected truth values \(bool\)"):
        session.step({"by": [1, 2], "halve": 1})
    with pytest.raises(UsageError, match=r"input 'by' has a value outside -9223372036854775808"):
        session.step({"by": np.array([2**63, 1], np.uint64), "halve": True})


@pytest.mark.parametrize("name", ["vad", "leaky"])
def test_states_fork_save_and_go_on(request: pytest.FixtureRequest, name: str) -> None:
    path = request.getfixturevalue(name)
    model = load(path, **({"states": STATES, "constants": CONSTANTS} if name == "vad" else LEAKY))
    frames = FRAMES if name == "vad" else FRAMES[:, :, :2]
    session = model.session()
    for frame in frames[:10]:
        session.step(frame)
    fork, saved = session.fork(), session.state.to_bytes()
    following = [session.step(frame) for frame in frames[10:20]]
    again = load(path, **({"states": STATES, "constants": CONSTANTS} if name == "vad" else LEAKY))
    other = again.session(State.from_bytes(saved))
    for frame, expected in zip(frames[10:20], following, strict=True):
        np.testing.assert_array_equal(fork.step(frame), expected)
        np.testing.assert_array_equal(other.step(frame), expected)
    session.reset()
    np.testing.assert_array_equal(session.step(frames[0]), model.session().step(frames[0]))


def test_a_state_is_bound_to_the_file(vad: Path, tmp_path: Path) -> None:
    model = load(vad, states=STATES, constants=CONSTANTS)
    assert model.manifest.model == FileRecord.of(vad).sha256
    changed = onnx.load(vad)
    changed.doc_string = "another file"
    onnx.save(changed, tmp_path / "other.onnx")
    other = load(tmp_path / "other.onnx", states=STATES, constants=CONSTANTS)
    with pytest.raises(StateError, match=f"belongs to model {model.manifest.model[:12]}, not to"):
        other.session(model.session().state)


def test_it_has_no_text(vad: Path) -> None:
    with pytest.raises(UsageError, match="has no vocabulary: step it with session"):
        load(vad, states=STATES, constants=CONSTANTS).generate("分")


def test_a_graph_without_states_is_a_function(vad: Path) -> None:
    session = load(vad, states={}, constants=CONSTANTS).session()
    zeros = np.zeros((2, 1, UNITS), np.float32)
    both = [session.step({"input": FRAMES[0], "state": zeros}) for _ in range(2)]
    np.testing.assert_array_equal(both[0]["output"], both[1]["output"])
    np.testing.assert_allclose(both[0]["output"], NumpyVad().step(FRAMES[0]), rtol=0, atol=1e-5)


def test_a_graph_whose_output_is_its_next_state_gives_that(tmp_path: Path) -> None:
    """Without it `step` raised StopIteration, which ends a generator around it in silence."""
    node = helper.make_node
    nodes = [node("Mul", ["h", "half"], ["kept"]), node("Add", ["kept", "x"], ["next_h"])]
    inputs = [info("x", TensorProto.FLOAT, [1, 3]), info("h", TensorProto.FLOAT, [1, 3])]
    outputs = [info("next_h", TensorProto.FLOAT, [1, 3])]
    path = save(tmp_path / "a.onnx", nodes, inputs, outputs, {"half": np.float32(0.5).reshape(1)})
    session = load(path, states={"h": "next_h"}).session()
    for expected in (1.0, 1.5, 1.75):
        np.testing.assert_array_equal(session.step(np.ones((1, 3))), np.full((1, 3), expected, np.float32))


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As TensorFlow converts an LSTM of Keras 2: one operator, which keeps h and c in variables."""
    k2 = pytest.importorskip("tf_keras", reason="tf_keras, which is Keras 2, is not installed")
    folder = tmp_path_factory.mktemp("fused")
    model = k2.Sequential([k2.layers.Input((5, 4), batch_size=1), k2.layers.LSTM(3, return_sequences=True)])
    signature = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((1, 5, 4)))
    model.save(folder / "model", save_format="tf", signatures=signature)
    path = folder / "fused.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "model")).convert())
    return path


def test_a_file_that_keeps_a_state_to_itself_is_refused_in_the_words_of_inspect(fused: Path) -> None:
    """It would have been loaded without states, and one session's stream would have gone on in the next."""
    from steprnn.export.inspect import inspect

    (words,) = (hazard.words for hazard in inspect(fused).hazards if hazard.kind == "hidden-state")
    assert words.endswith("variable tensors: the interpreter keeps a state that the caller does not hold")
    with pytest.raises(UsageError) as raised:
        load(fused, states={})
    assert str(raised.value) == (
        f"{fused} is no step: {words}; export it with its states as inputs and outputs"
    )


def test_a_loop_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steprnn.runtime.engines.onnx.LONGEST", 1)
    node = helper.make_node
    body = helper.make_graph(
        [node("Identity", ["on"], ["still"]), node("Sin", ["a"], ["b"])],
        "body",
        [
            info("i", TensorProto.INT64, []),
            info("on", TensorProto.BOOL, []),
            info("a", TensorProto.FLOAT, [1]),
        ],
        [info("still", TensorProto.BOOL, []), info("b", TensorProto.FLOAT, [1])],
    )
    nodes = [node("Loop", ["trips", "", "x"], ["y"], body=body), node("Identity", ["h"], ["next_h"])]
    inputs = [info("x", TensorProto.FLOAT, [1]), info("h", TensorProto.FLOAT, [1])]
    outputs = [info("y", TensorProto.FLOAT, [1]), info("next_h", TensorProto.FLOAT, [1])]
    path = save(tmp_path / "a.onnx", nodes, inputs, outputs, {"trips": np.array(2**62)})
    with pytest.raises(UsageError, match=r"one step takes more than 1 s; it may hold a loop"):
        load(path, states={"h": "next_h"})


def test_our_own_graph_runs_as_one_of_another_maker(tiny: Path, models: dict[str, Model]) -> None:
    for name, engine in (("step.onnx", "onnx"), ("step.tflite", "litert")):
        foreign = load(tiny / name, states={"h": "next_h", "c": "next_c"}).session()
        session = models[engine].session()
        for token in (3, 5, 8):
            np.testing.assert_array_equal(foreign.step([token]), session.step(token))


# What is refused

TAKES = "it takes input float32 [?, 64], state float32 [2, ?, 128], sr int64 [] and gives output float32 "


def test_without_states_the_graph_and_the_pairs_are_told(vad: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load(vad)
    words = str(raised.value)
    assert words.startswith(f"{vad} does not say which outputs are its states: {TAKES}[?, 1], stateN float32")
    assert words.endswith("by their names you may mean states={'state': 'stateN'}")


def test_where_names_tell_nothing_shapes_are_told(tmp_path: Path) -> None:
    inputs = [info(name, TensorProto.FLOAT, [1, 4]) for name in ("one", "two")]
    nodes = [helper.make_node("Add", ["one", "two"], ["three"])]
    path = save(tmp_path / "g.onnx", nodes, inputs, [info("three", TensorProto.FLOAT, [1, 4])], {})
    with pytest.raises(UsageError) as raised:
        load(path)
    assert str(raised.value).endswith(
        "pass states={input: output}, or states={} where it has none; "
        "by dtype and shape could come back: one as three, two as three"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"states": {"h": "stateN"}}, f"states names the input 'h', which VAD does not have: {TAKES}"),
        ({"states": {"state": "next"}}, f"states names the output 'next', which VAD does not have: {TAKES}"),
        (
            {"states": {"state": "output"}},
            "state 'state' is float32 [2, 1, 128] and 'output' is float32 [1, 1]: it cannot come back as",
        ),
        (
            {"states": {"sr": "stateN"}},
            "state 'sr' is int64 [] and 'stateN' is float32 [2, 1, 128]: it cannot come back as that",
        ),
        (
            {"states": {"state": "stateN", "input": "stateN"}},
            "states gives the output 'stateN' to state and input; expected one",
        ),
        ({"constants": {"rate": 1}}, f"constants names the input 'rate', which VAD does not have: {TAKES}"),
        (
            {"constants": {"state": 1}},
            "'state' is among the states and the constants; expected it in one of them",
        ),
        (
            {"constants": {"sr": 16000.0}},
            "constant 'sr' has dtype float64, expected whole numbers (int64)",
        ),
        ({"constants": {"sr": [16000]}}, "constant 'sr' has shape [1], expected []"),
        (
            {"constants": {"sr": np.uint64(2**63)}},
            "constant 'sr' is outside the range of int64",
        ),
        ({"shapes": {"y": [1]}}, f"shapes names the input 'y', which VAD does not have: {TAKES}"),
        ({"shapes": {"input": [1, 65]}}, "shapes gives 'input' [1, 65], which does not fit [?, 64]"),
        ({"shapes": {"input": [1]}}, "shapes gives 'input' [1], which does not fit [?, 64]"),
        ({"shapes": {"input": [0, 64]}}, "shapes gives 'input' [0, 64], which does not fit [?, 64]"),
        (
            {"shapes": {"input": [2, 64]}},
            "VAD does not run on input [2, 64], state [2, 1, 128], sr [] ([ONNXRuntimeError]",
        ),
        ({"engine": "litert"}, "VAD is for the engine onnx, not litert"),
        ({"variant": "int8"}, "VAD is one graph and has no int8 variant beside it"),
        ({"threads": 0}, "threads is 0; expected at least 1"),
    ],
)
def test_what_does_not_fit_is_told(vad: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        load(vad, **({"states": STATES} | options))
    assert str(raised.value).startswith(words.replace("VAD", str(vad)))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (FRAMES[0][:, :-1], "input 'input' has shape (1, 63), expected (1, 64)"),
        (FRAMES[0][0], "input 'input' has shape (64,), expected (1, 64)"),
        ([["a"] * WIDTH], "input 'input' has dtype <U1, expected numbers (float32)"),
    ],
)
def test_an_input_that_does_not_fit_is_told(vad: Path, x: Any, words: str) -> None:
    session = load(vad, states=STATES, constants=CONSTANTS).session()
    with pytest.raises(UsageError) as raised:
        session.step(x)
    assert str(raised.value) == words


def test_another_batch_is_told_where_it_is_asked_for(vad: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load(vad, states=STATES, constants=CONSTANTS).session(batch=2)
    assert str(raised.value) == (
        "this graph was loaded with 'state' as [2, 1, 128]; for other rows load it with shapes={...}, "
        "and leave batch out"
    )


def test_text_inputs_are_told(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["text"], ["y"])]
    inputs, outputs = ([info(name, TensorProto.STRING, [1])] for name in ("text", "y"))
    path = save(tmp_path / "text.onnx", nodes, inputs, outputs, {})
    with pytest.raises(UsageError, match="'text' is string, which is no array of numbers"):
        load(path, states={})


@pytest.mark.parametrize("name", ["broken.onnx", "broken.tflite"])
def test_a_file_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"broken" * 20)
    with pytest.raises(BundleError, match=f"refuses .*{name}"):
        load(tmp_path / name, states={})


def test_a_bundle_takes_no_states(tiny: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load(tiny, states={"h": "next_h"})
    assert str(raised.value) == "states, constants and shapes are for a graph file; a bundle tells its own"


# Pairs by name


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ("x h c", "y next_h next_c", "h>next_h c>next_c"),
        ("x c h", "next_h next_c y", "c>next_c h>next_h"),
        ("input state sr", "output stateN", "state>stateN"),
        ("input h0 c0", "output hn cn", "h0>hn c0>cn"),
        ("x h_0 c_0", "y h_n c_n", "h_0>h_n c_0>c_n"),
        ("x initial_h initial_c", "Y Y_h Y_c", "initial_h>Y_h initial_c>Y_c"),
        ("audio_in s_in", "audio_out s_out", "s_in>s_out"),
        ("in_cache0 in_cache1", "out_cache0 out_cache1", "in_cache0>out_cache0 in_cache1>out_cache1"),
        ("past_key_values.0.key", "present.0.key", "past_key_values.0.key>present.0.key"),
        ("previous_state_h previous_state_c", "new_state_h new_state_c", None),
        ("h c", "h.1 c.1", "h>h.1 c>c.1"),
        ("h c", "h c", "h>h c>c"),
        ("conv_cache", "enhanced conv_cache_out", "conv_cache>conv_cache_out"),
        ("serving_default_h:0", "next_h", "serving_default_h:0>next_h"),
        # and what must not be taken for a pair
        ("x", "y", ""),
        ("input_1 input_2", "output_1 output_2", ""),
        ("token", "next_token", ""),
        ("h", "next_h new_h", ""),
        ("h h_in", "h_out", ""),
        ("a b", "c d", ""),
        ("x state", "Identity StatefulPartitionedCall:1", ""),
    ],
)
def test_pairs_by_name(inputs: str, outputs: str, expected: str | None) -> None:
    ins, outs = ([Declared(n, "float32", (1, 8)) for n in part.split()] for part in (inputs, outputs))
    found = " ".join(f"{p.state}>{p.next}" for p in pairs_by_name(ins, outs))
    if expected is None:
        expected = " ".join(f"{a}>{b}" for a, b in zip(inputs.split(), outputs.split(), strict=True))
    assert found == expected


@pytest.mark.parametrize(
    ("state", "following", "pairs"),
    [
        (("float32", (2, None, 128)), ("float32", (None, None, None)), 1),
        (("float32", (2, "batch", 128)), ("float32", (2, 1, 128)), 1),
        (("float32", (1, 8)), ("float32", None), 1),
        (("float32", (1, 8)), ("float32", (1, 9)), 0),
        (("float32", (1, 8)), ("float32", (1, 1, 8)), 0),
        (("float32", (1, 8)), ("float16", (1, 8)), 0),
    ],
)
def test_a_pair_needs_dtypes_and_shapes_that_agree(state: Any, following: Any, pairs: int) -> None:
    found = pairs_by_name([Declared("h", *state)], [Declared("next_h", *following)])
    assert [p.evidence for p in found] == ["rule * -> next_*"] * pairs
