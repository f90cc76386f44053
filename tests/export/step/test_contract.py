"""A step written by hand is held against its spec: nothing is guessed, renamed, cast or broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("keras")

from steprnn.export import Step, StepSpec, TensorSpec  # noqa: E402
from steprnn.export.step.moment import Moment  # noqa: E402
from steprnn.runtime.errors import ExportError  # noqa: E402

SPEC = StepSpec(
    (TensorSpec("x", "float32", (4,)), TensorSpec("token", "int32", (), 7)),
    (TensorSpec("h", "float32", (3,)),),
    (TensorSpec("y", "float32", (2,)),),
)


def right(t: Any) -> dict[str, Any]:
    h = t["h"] + t["x"][:, :3] + tf.cast(t["token"], tf.float32)[:, None]
    return {"next_h": h, "y": 2 * h[:, :2]}


def step(change: Callable[[dict[str, Any]], dict[str, Any]] = lambda results: results) -> Step:
    return Step(SPEC, lambda t: change(right(t)))


def test_what_is_not_told_is_nothing() -> None:
    made = step()
    assert made.initial == {}
    assert (made.on_sequences, made.fixed_steps, made.mask_value) == (None, None, None)
    assert made.suspect({}) == "no layer can be named"


def test_the_signature_has_every_input_and_state_with_a_free_batch() -> None:
    assert step().signature() == {
        "x": tf.TensorSpec([None, 4], tf.float32, "x"),
        "token": tf.TensorSpec([None], tf.int32, "token"),
        "h": tf.TensorSpec([None, 3], tf.float32, "h"),
    }


@pytest.mark.parametrize("rows", [1, 3])
def test_the_function_is_the_step(rows: int) -> None:
    draw = np.random.default_rng(0)
    given = {
        "x": draw.standard_normal((rows, 4)).astype(np.float32),
        "token": np.arange(rows, dtype=np.int32),
        "h": draw.standard_normal((rows, 3)).astype(np.float32),
    }
    results = step().function()(**{name: tf.constant(array) for name, array in given.items()})
    h = given["h"] + given["x"][:, :3] + given["token"][:, None]
    assert sorted(results) == ["next_h", "y"]
    np.testing.assert_allclose(results["next_h"], h, rtol=1e-6)
    np.testing.assert_allclose(results["y"], 2 * h[:, :2], rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: {"y": r["y"]}, "the step returns y; its spec expects next_h, y"),
        (lambda r: r | {"z": r["y"]}, "the step returns next_h, y, z; its spec expects next_h, y"),
        (
            lambda r: r | {"y": r["y"][:, :1]},
            "the step returns y as float32 (None, 1); its spec expects float32 (None, 2)",
        ),
        (
            lambda r: r | {"next_h": r["next_h"][0]},
            "the step returns next_h as float32 (3,); its spec expects float32 (None, 3)",
        ),
        (
            lambda r: r | {"next_h": tf.cast(r["next_h"], tf.float64)},
            "the step returns next_h as float64 (None, 3); its spec expects float32 (None, 3)",
        ),
    ],
    ids=["too few", "too many", "narrow", "without rows", "dtype"],
)
def test_what_is_returned_otherwise_is_refused(change: Any, words: str) -> None:
    with pytest.raises(ExportError) as raised:
        step(change).function()
    assert str(raised.value) == words


def test_what_is_returned_may_be_numbers_of_the_right_kind() -> None:
    """Not only tensors: a constant of NumPy is one."""
    constant = step(lambda r: r | {"y": np.ones((1, 2), np.float32)}).function()
    results = constant(x=tf.zeros((1, 4)), token=tf.zeros((1,), tf.int32), h=tf.zeros((1, 3)))
    assert results["y"].numpy().tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize(
    ("part", "name"), [("inputs", "h"), ("states", "x"), ("outputs", "token"), ("outputs", "next_h")]
)
def test_two_tensors_of_one_name_are_refused(part: str, name: str) -> None:
    parts = {"inputs": SPEC.inputs, "states": SPEC.states, "outputs": SPEC.outputs}
    parts[part] += (TensorSpec(name, "float32", (1,)),)
    with pytest.raises(ExportError) as raised:
        Step(StepSpec(**parts), right)
    assert str(raised.value) == (
        f"the step has two tensors named {name!r}; rename that input or output of the model"
    )


# The time axis of length 1.


def test_an_axis_that_was_added_and_is_dropped_leaves_no_reshape() -> None:
    moment = Moment({})
    tensor = tf.ones((2, 3))
    timed = moment.add_time(tensor)
    assert timed.shape == (2, 1, 3)
    assert moment.drop_time(timed) is tensor
    assert moment.drop_time(tf.ones((2, 1, 3))).shape == (2, 3)
    assert moment.drop_time_if_any(timed) is tensor
    for value in (tf.ones((2,)), tf.ones(()), "text", None, 3):
        assert moment.drop_time_if_any(value) is value
    assert moment.drop_time_if_any(tf.ones((2, 1))).shape == (2,)
    assert moment.following == {}
