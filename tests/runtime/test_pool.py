"""Runners that are kept, and models and sessions in other processes."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import threading
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import BundleError, Model, load, pool
from steprnn.runtime.parity.levels import begin
from steprnn.runtime.pool import Pool


def test_many_batch_sizes_keep_a_bounded_number_of_runners(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny, engine="litert")
    weight = model.runners._weight(64)
    monkeypatch.setattr(pool, "MOST_BYTES", 12 * weight)
    for batch in range(1, 120):
        with model.runner(batch):
            pass
    assert 3 <= model.runners.idle <= 20
    assert model.runners._made <= 12 * weight
    kept = {batch for batch, idle in model.runners._idle.items() if idle}
    assert 119 in kept, "those that were used last stay"
    assert 1 not in kept
    assert model.generate("分", 5) == load(tiny, engine="litert").generate("分", 5)


def test_a_burst_of_threads_keeps_no_more(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny, engine="onnx")
    monkeypatch.setattr(pool, "MOST_BYTES", 4 * model.runners._weight(1))
    together = threading.Barrier(30, timeout=60)

    def step() -> None:
        with model.runner() as runner:
            together.wait()
            begin(runner)
            runner.run()

    threads = [threading.Thread(target=step) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 1 <= model.runners.idle <= 4
    assert model.runners._made == model.runners.idle * model.runners._weight(1)


def test_a_runner_is_lent_again(model: Model) -> None:
    made: list[int] = []
    lending = Pool(lambda batch: made.append(batch) or model._opened.runner(batch), lambda batch: 1)  # type: ignore[func-returns-value]
    for batch in (1, 2, 1, 2, 2):
        with lending.lend(batch):
            pass
    with lending.lend(1), lending.lend(1):
        pass
    assert made == [1, 2, 1]


@pytest.mark.parametrize("engine", ["litert", "onnx"])
@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_a_model_and_a_session_in_another_process(tiny: Path, start: str, engine: str) -> None:
    context: Any = multiprocessing.get_context(start)
    model = load(tiny, engine=engine)
    session = model.session(batch=2)
    session.step([1, 2])
    writes = methodcaller("generate", "分开", 20, seed=3, temperature=1.0)
    goes_on = methodcaller("step", [7, 8])
    with context.Pool(1) as pool:
        assert pool.apply_async(writes, (model,)).get(120) == writes(model)
        np.testing.assert_array_equal(pool.apply_async(goes_on, (session,)).get(120), goes_on(session))


def test_a_pickle_of_a_bundle_that_was_replaced(tiny: Path, tmp_path: Path, edit_manifest: Any) -> None:
    folder = shutil.copytree(tiny, tmp_path / "a.bundle")
    data = pickle.dumps(load(folder, variant="int8"))
    again = pickle.loads(data)
    assert (again.artefact.variant, again.engine) == ("int8", load(folder, variant="int8").engine)
    edit_manifest(folder, lambda record: record.update(model="0" * 64))
    with pytest.raises(BundleError, match="is not the bundle that was pickled; load the same one in both"):
        pickle.loads(data)


def test_a_model_that_nobody_loaded_says_what_to_do(model: Model, tiny: Path) -> None:
    alone = Model(model.manifest, model.artefact, model.engine, model._opened, None, model.initial_state)
    with pytest.raises(TypeError, match="was not made by load; pickle the path, and load it in the other"):
        pickle.dumps(alone)
