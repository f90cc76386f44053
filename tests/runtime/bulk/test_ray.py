"""The same on Ray, with two actors on this machine; where Ray is installed."""

from __future__ import annotations

import json
import os
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, cli
from steprnn.runtime.bulk import Embed, job
from steprnn.runtime.bulk.sources import Source
from steprnn.runtime.bulk.workers import Actors, Work, Worker, in_order

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of files that it leaves open


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows, two of which cannot be done."""
    chance = random.Random(1)
    texts = ["".join(chance.choices("云不走月在雨后分开 ", k=chance.randint(2, 30))) for _ in range(400)]
    texts[3], texts[200] = "", "分爱"
    rows = [json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path / "in.jsonl"


def test_the_command_gives_the_bytes_of_one_process(
    tiny: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Also of a job that another began."""
    monkeypatch.setattr(job, "ROWS", 16)
    flags = ["--task", "generate", "-n", "20", "--temp", "1.5", "--seed", "3"]
    one, two, three = (tmp_path / f"{n}.jsonl" for n in ("one", "two", "three"))
    assert cli.main(["map", str(tiny), str(source), "--out", str(one), *flags, "--processes", "1"]) == 0
    assert (
        cli.main(["map", str(tiny), str(source), "--out", str(two), *flags, "--ray", "--processes", "2"]) == 0
    )
    assert two.read_bytes() == one.read_bytes()
    argv = ["map", str(tiny), str(source), "--out", str(three), *flags]
    assert cli.main([*argv, "--processes", "1", "--strict"]) == 2
    assert len([*(tmp_path / "three.jsonl.parts").glob("*.jsonl")]) == 0
    source_rows = source.read_text(encoding="utf-8").splitlines()
    assert len(source_rows) == len(one.read_text(encoding="utf-8").splitlines())
    assert cli.main([*argv, "--ray", "--processes", "2"]) == 0
    assert three.read_bytes() == one.read_bytes()
    capfd.readouterr()
    assert cli.main([*argv[:4], str(tmp_path / "s.jsonl"), *flags, "--ray", "--strict"]) == 2
    assert capfd.readouterr().err.startswith(f"steprnn: {source} row 4: the prompt is empty")


def test_an_actor_that_is_killed_is_made_again(tiny: Path, source: Path) -> None:
    work = Work("embed", str(tiny.absolute()), {}, ".jsonl", None)

    class Traced(Worker):
        def process(self) -> int:
            return os.getpid()

    kind = ray.remote(num_cpus=0.5, max_restarts=-1, max_task_retries=-1)(Traced)
    actors = [kind.remote(work) for _ in range(2)]
    pids = ray.get([actor.process.remote() for actor in actors])
    found = []
    for done in in_order(Actors(ray, actors), Source(source, "text").parts(16)):
        found.append(done)
        if len(found) == 3:
            os.kill(pids[0], signal.SIGKILL)
    assert ray.get(actors[0].process.remote()) != pids[0]
    here = Worker(work)
    assert found == [here.do(part) for part in Source(source, "text").parts(16)]


def test_the_class_goes_into_ray_data_as_it_is(tiny: Path, models: dict[str, Model]) -> None:
    data = pytest.importorskip("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    texts = ["分开", "云不走 月", "爱", "雨后分开"] * 50
    rows = data.from_items([{"id": i, "text": text} for i, text in enumerate(texts)], override_num_blocks=8)
    done = rows.map_batches(
        Embed,
        fn_constructor_args=(str(tiny.absolute()),),
        fn_constructor_kwargs={"engine": "litert"},
        batch_format="numpy",
        batch_size=16,
        num_cpus=0.4,  # of a core each, or reading starves
        compute=data.ActorPoolStrategy(size=2),
    )
    found = sorted(done.take_all(), key=lambda row: row["id"])
    assert [row["text"] for row in found] == texts
    for row in found:
        if row["text"] == "爱":
            assert row["error"] == "'爱' not among the 21 characters of the vocabulary"
        else:
            assert row["error"] is None
            expected = models["litert"].embed(row["text"])
            np.testing.assert_allclose(row["embedding"], expected, rtol=0, atol=2e-6)
