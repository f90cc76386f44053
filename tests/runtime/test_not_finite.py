"""Numbers that are none: NaN in the weights of one token, and frames that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, NotFinite, State, StateError, load
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import open_engine
from steprnn.runtime.files import GOLDEN
from steprnn.runtime.parity import levels
from steprnn.runtime.parity.levels import Candidate
from steprnn.runtime.parity.profiles import PROFILES
from steprnn.runtime.parity.reference import Reference

POISON = 5


@pytest.fixture(scope="module", params=["litert", "onnx"])
def broken(request: pytest.FixtureRequest, poisoned: Path) -> Model:
    return load(poisoned, engine=request.param, variant="float32")


@pytest.fixture
def character(broken: Model) -> str:
    assert broken.vocabulary is not None
    return broken.vocabulary.tokens[POISON]


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9}, {"repeat_penalty": 1.3}],
)
@pytest.mark.parametrize("n", [None, 3])
def test_a_text_ends_with_an_error_that_names_the_step_and_the_model(
    broken: Model, character: str, options: dict[str, Any], n: int | None
) -> None:
    with pytest.raises(NotFinite) as raised:
        broken.generate("分" + character, 20, n=n, seed=1, **options)
    assert str(raised.value) == (
        f"the largest logit is nan after 2 steps of model {broken.manifest.model[:12]}; "
        "expected finite numbers: look at its weights and at what went in"
    )
    assert broken.generate("分", 1) == broken.generate("分", 1), "the runner is good for the next text"


def test_a_processor_is_not_blamed_for_it(broken: Model, character: str) -> None:
    def nothing(logits: Any, tokens: Any) -> None:
        raise AssertionError("it was called with logits that are none")

    with pytest.raises(NotFinite, match="the largest logit is nan after 1 steps"):
        broken.generate(character, 5, logits_processor=nothing)


def test_a_score_and_an_embedding_are_refused(broken: Model, character: str) -> None:
    with pytest.raises(NotFinite, match="the largest logit is nan after 2 steps of model"):
        broken.score("分" + character + "分")
    with pytest.raises(NotFinite, match="state 'h' holds nan after 2 steps of model"):
        broken.embed("分" + character)


def test_a_session_stays_where_it_was(broken: Model) -> None:
    session, other = broken.session(batch=2), broken.session(batch=2)
    session.step([1, 2])
    other.step([1, 2])
    with pytest.raises(NotFinite) as raised:
        session.step([1, POISON])
    assert (raised.value.steps, raised.value.model) == (2, broken.manifest.model)
    assert raised.value.what == "output 'y' holds nan"
    np.testing.assert_array_equal(session.step([3, 4]), other.step([3, 4]))


def test_a_block_names_its_step_and_changes_nothing(broken: Model) -> None:
    session, other = broken.session(batch=2), broken.session(batch=2)
    for stream in (session, other):
        stream.step([1, 2])
    with pytest.raises(NotFinite) as raised:
        session.run([[1, 2], [3, 4], [1, POISON], [5, 6]])
    assert (raised.value.steps, raised.value.what) == (4, "output 'y' holds nan")
    np.testing.assert_array_equal(session.step([3, 4]), other.step([3, 4]))
    with pytest.raises(NotFinite) as raised:
        session.step([POISON, 1])
    assert raised.value.steps == 3


class Adder:
    """A graph of another maker: h goes up by x, and y is the logarithm of x."""

    def __init__(self, folder: Path, dtype: str) -> None:
        from onnx import TensorProto, helper, save

        kind = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int32": TensorProto.INT32}
        nodes = [helper.make_node("Add", ["x", "h"], ["hn"])]
        nodes += [helper.make_node("Cast", ["x"], ["f"], to=1), helper.make_node("Log", ["f"], ["y"])]
        info = helper.make_tensor_value_info
        inputs = [info(name, kind[dtype], [1, 4]) for name in ("x", "h")]
        outputs = [info("y", TensorProto.FLOAT, [1, 4]), info("hn", kind[dtype], [1, 4])]
        graph = helper.make_graph(nodes, "graph", inputs, outputs)
        save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
            folder / "a.onnx",
        )
        self.model = load(folder / "a.onnx", states={"h": "hn"})


@pytest.fixture
def adder(tmp_path: Path) -> Callable[[str], Model]:
    pytest.importorskip("onnx")
    return lambda dtype: Adder(tmp_path, dtype).model


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_frame_that_is_no_number_leaves_the_stream_as_it_was(
    adder: Callable[[str], Model], dtype: str, bad: float
) -> None:
    session = adder(dtype).session()
    frame = np.array([[1, 2, 3, 4]], dtype)
    session.step(frame)
    what = "state 'h' holds inf" if bad > 0 else "output 'y' holds nan"
    with pytest.raises(NotFinite, match=f"{what} after 2 steps of model"):
        session.step(np.array([[1, bad, 3, 4]], dtype))
    session.step(frame)
    assert session.state.tensors["h"].tolist() == [[2, 4, 6, 8]]


def test_a_block_of_a_graph_whose_output_is_its_state(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, half = onnx.helper, onnx.TensorProto.FLOAT16
    inputs = [helper.make_tensor_value_info(name, half, [1, 4]) for name in ("x", "h")]
    output = helper.make_tensor_value_info("hn", half, [1, 4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "h"], ["hn"])], "graph", inputs, [output])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "sum.onnx")
    session = load(tmp_path / "sum.onnx", states={"h": "hn"}).session()
    frames = np.full((3, 1, 4), 0.5, np.float16)
    y = session.run(frames)
    assert (y.dtype, y.tolist()) == (np.float16, [[[0.5] * 4], [[1.0] * 4], [[1.5] * 4]])
    frames[2] = np.inf
    with pytest.raises(NotFinite, match="state 'h' holds inf after 6 steps"):
        session.run(frames)
    assert session.state.tensors["h"].tolist() == [[1.5] * 4]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_block_with_a_frame_that_is_no_number(adder: Callable[[str], Model], bad: float) -> None:
    session = adder("float32").session()
    frames = np.full((5, 1, 4), 1, np.float32)
    session.run(frames)
    frames[3, 0, 2] = bad
    what = "state 'h' holds inf" if bad > 0 else "output 'y' holds nan"
    with pytest.raises(NotFinite, match=f"{what} after 9 steps of model"):
        session.run(frames)
    assert session.state.tensors["h"].tolist() == [[5] * 4]
    large = np.full((2, 1, 4), 1e38, np.float32)  # whose squares are infinite
    np.testing.assert_allclose(session.run(large), np.log(large), rtol=1e-6)
    assert session.state.tensors["h"].tolist() == [[float(np.float32(1e38) + np.float32(1e38))] * 4]


def test_an_output_may_be_infinite_and_not_nan(adder: Callable[[str], Model]) -> None:
    session = adder("float32").session()
    np.testing.assert_array_equal(session.step(np.zeros((1, 4), np.float32)), [[-np.inf] * 4])
    with pytest.raises(NotFinite, match="output 'y' holds nan after 2 steps"):
        session.step(np.full((1, 4), -1, np.float32))
    assert session.state.tensors["h"].tolist() == [[0.0] * 4]


@pytest.mark.parametrize(("dtype", "large"), [("float32", 3e38), ("float16", 6e4), ("int32", 2**31 - 1)])
def test_large_numbers_are_numbers(adder: Callable[[str], Model], dtype: str, large: float) -> None:
    """Their squares are not, by which the session looks first."""
    session = adder(dtype).session()
    session.step(np.full((1, 4), large, dtype))
    assert session.state.tensors["h"].tolist() == np.full((1, 4), large, dtype).tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_no_number_is_neither_written_nor_taken(model: Model, bad: float) -> None:
    session = model.session()
    state = session.state
    state.tensors["c"][0, 3] = bad
    with pytest.raises(NotFinite, match=f"state 'c' holds {bad} of model"):
        state.to_bytes()
    with pytest.raises(StateError, match=f"state 'c' holds {bad}, from which no stream goes on; begin again"):
        session.state = state
    assert State.from_bytes(session.state.to_bytes()).model == model.manifest.model


@pytest.mark.parametrize("engine", ["litert", "onnx"])
@pytest.mark.parametrize("batched", [True, False])
def test_check_finds_a_token_that_the_recorded_run_never_meets(
    poisoned: Path, engine: str, batched: bool
) -> None:
    manifest = Manifest.read(poisoned)
    path = poisoned / ("step.onnx" if engine == "onnx" else "step.tflite")
    opened = open_engine(engine, path, manifest.step)
    judged = PROFILES["float32"]
    candidate = Candidate("graph", engine, manifest.step, judged, lambda threads: opened, batched=batched)
    golden = Reference.read(poisoned / GOLDEN)
    met = golden.inputs["x"][:, 0] == POISON
    before = golden.part(slice(0, int(met.argmax()))) if met.any() else golden
    assert before.steps >= 16
    found = levels.one_step(candidate, opened, before)
    assert not found.passed
    assert found.failure == f"y is not finite after the token {POISON} alone"
