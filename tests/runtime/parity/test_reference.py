"""A recorded run: its parts, its file, its units, and how a candidate is run over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError
from steprnn.runtime.bundle.manifest import Manifest
from steprnn.runtime.engines import open_engine
from steprnn.runtime.parity.reference import Reference, chain, chaotic_from, errors_of, steps_of, units_of


def run() -> Reference:
    """Six steps of two rows, in which every number is another one."""
    return Reference(
        {"x": np.arange(12, dtype=np.int32).reshape(6, 2)},
        {"y": np.arange(36.0).reshape(6, 2, 3), "next_h": 100 + np.arange(24.0).reshape(6, 2, 2)},
        {"y": 1e-6, "next_h": 2e-6},
        {"h": np.array([[1.0, 2.0], [3.0, 4.0]])},
    )


def test_a_part_begins_at_what_was_reached_before_it() -> None:
    whole, part = run(), run().part(slice(2, 5), slice(1, 2))
    assert (whole.steps, whole.batch) == (6, 2)
    assert (part.steps, part.batch) == (3, 1)
    assert part.inputs["x"].tolist() == [[5], [7], [9]]
    np.testing.assert_array_equal(part.results["y"], whole.results["y"][2:5, 1:])
    assert part.state is not None
    assert {n: a.tolist() for n, a in part.state.items()} == {"h": [[106.0, 107.0]]}
    assert part.units == whole.units


@pytest.mark.parametrize("steps", [slice(0, 3), slice(None, 3)])
def test_the_first_part_begins_where_the_run_does(steps: slice) -> None:
    part = run().part(steps, slice(1, 2))
    assert part.state is not None
    assert {n: a.tolist() for n, a in part.state.items()} == {"h": [[3.0, 4.0]]}
    all_rows = run().part(steps)
    assert all_rows.batch == 2
    assert all_rows.state is not None
    assert all_rows.state["h"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_part_of_a_part_begins_at_its_own_states() -> None:
    part = run().part(slice(1, None)).part(slice(0, 2))
    assert part.state is not None
    assert part.state["h"].tolist() == [[100.0, 101.0], [102.0, 103.0]]


def test_the_file_has_float32_results_and_states_and_exact_units(tmp_path: Path) -> None:
    path = tmp_path / "golden.npz"
    run().write(path)
    with np.load(path) as file:
        kinds = {name: (file[name].dtype, file[name].shape) for name in file.files}
    assert kinds == {
        "input/x": (np.int32, (6, 2)),
        "result/y": (np.float32, (6, 2, 3)),
        "result/next_h": (np.float32, (6, 2, 2)),
        "unit/y": (np.float64, ()),
        "unit/next_h": (np.float64, ()),
        "state/h": (np.float32, (2, 2)),
    }
    again = Reference.read(path)
    assert again.units == {"y": 1e-6, "next_h": 2e-6}
    assert again.state is not None
    assert list(again.state) == ["h"]
    np.testing.assert_array_equal(again.state["h"], [[1, 2], [3, 4]])


def test_a_run_from_zero_has_no_state_in_its_file(tmp_path: Path) -> None:
    whole = run()
    Reference(whole.inputs, whole.results, whole.units).write(tmp_path / "golden.npz")
    assert Reference.read(tmp_path / "golden.npz").state is None


def test_a_file_with_python_objects_is_refused_and_not_run(tmp_path: Path) -> None:
    class Program:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "was here",)

    path = tmp_path / "golden.npz"
    np.savez(path, **{"input/x": np.array([Program()], object)})  # type: ignore[arg-type]
    with pytest.raises(BundleError) as raised:
        Reference.read(path)
    reason = "an array of object"
    assert str(raised.value) == f"{path} is not a golden trajectory ({reason}); export again"
    assert not (tmp_path / "was here").exists()


def test_a_unit_is_the_largest_error_or_half_a_spacing_of_the_largest_value() -> None:
    oracle = {
        "y": np.array([[[1.0], [-3.0]], [[0.5], [2.0]]]),
        "h": np.array([[[-0.5], [0.25]]]),
        "far": np.array([[[-5.0], [1.0]]]),
    }
    float32 = oracle | {"y": np.array([[[1.25], [-3.0]], [[0.5], [1.0]]])}
    units = units_of(oracle, errors_of(oracle, float32))
    assert units == {"y": [1.0], "h": [2.0**-25], "far": [2.0**-22]}


def test_a_chain_begins_at_zero_or_at_a_state_and_copies_what_it_yields(tiny: Path, lstm: Any) -> None:
    runner = open_engine("onnx", tiny / "step.onnx", Manifest.read(tiny).step).runner(2)
    tokens = np.array([[1, 2], [3, 4], [5, 6]], np.int32)
    state = {"h": np.full((2, 8), 0.5, np.float32), "c": np.full((2, 8), -1.0, np.float32)}
    for begin in (None, state, None):
        got, expected = chain(runner, {"x": tokens}, begin), lstm.chain(tokens, **(begin or {}))
        assert list(got) == ["y", "next_h", "next_c"]
        for name, array in expected.items():
            np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-5, err_msg=name)
    runner.set_state(state)
    rows = list(steps_of(runner, {"x": tokens}))
    assert len(rows) == 3
    for t, row in enumerate(rows):
        np.testing.assert_allclose(row["y"], lstm.chain(tokens, **state)["y"][t], rtol=0, atol=1e-5)


def test_a_unit_is_that_of_its_channel() -> None:
    """A column of ten thousand and one of a thousandth: each has its own, and neither hides in the other."""
    exact = {"y": np.array([[[1e4, 1e-3, 2.0]], [[-9e3, 2e-3, 1.0]]])}
    near = {"y": exact["y"].astype(np.float32) + np.array([[[1e-3, 1e-10, 0.0]], [[0.0, 0.0, 0.0]]])}
    units = units_of(exact, errors_of(exact, near))["y"]
    assert units.shape == (3,)
    assert units[0] == pytest.approx(1e-3, rel=0.1)
    assert units[1] == 1e-3 * units[0], "the least share of the largest"
    assert units[2] == units[1]
    alone = units_of({"y": exact["y"][..., 1:]}, {"y": np.abs(near["y"] - exact["y"])[..., 1:]})["y"]
    assert alone[0] < 1e-9, "by itself it would be finer"


def test_a_lucky_channel_has_the_unit_that_is_usual() -> None:
    """Seven channels are two half spacings off and one is right: it is allowed them all the same."""
    exact = {"y": np.full((5, 2, 8), 1.5)}
    spacing = float(np.spacing(np.float32(1.5)))
    near = {"y": exact["y"] + np.where(np.arange(8) < 7, spacing, 0.0)}
    np.testing.assert_allclose(units_of(exact, errors_of(exact, near))["y"], spacing)
    reached = {"y": np.full(8, 48.0)}
    assert (units_of(exact, errors_of(exact, near), reached)["y"] >= 16 * spacing).all(), (
        "as far as values there are rounded"
    )


def test_a_chain_is_chaotic_where_its_rounding_is_no_rounding_any_more() -> None:
    exact = {"next_h": np.ones((50, 1, 2)), "y": np.full((50, 1, 1), 100.0)}
    near = {name: array.copy() for name, array in exact.items()}
    assert chaotic_from(exact, errors_of(exact, near)) == 50
    near["y"][20] += 0.0009
    assert chaotic_from(exact, errors_of(exact, near)) == 50, "less than a hundred thousandth of the largest"
    near["next_h"][30, 0, 1] += 1.1e-5
    near["next_h"][31] = np.nan
    assert chaotic_from(exact, errors_of(exact, near)) == 30
