"""`Embed`, `Score` and `Generate`: a dict of arrays in, the same with new columns out."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, UsageError
from steprnn.runtime.bulk import Embed, Generate, Score
from steprnn.runtime.bulk.workers import TASKS

FINE = ["分开", "云不走 月", "雨后分开"]
MIXED = [FINE[0], "", FINE[1], "分爱", None, FINE[2]]  # as Arrow gives a null
WORDS = [
    None,
    "the text is empty; expected at least one character to begin with",
    None,
    "'爱' not among the 21 characters of the vocabulary",
    "the text is of type NoneType; expected str",
    None,
]


def batch(texts: list[Any]) -> dict[str, Any]:
    return {"id": np.arange(len(texts)), "text": np.array(texts, object)}


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_each_row_has_what_it_has_alone_or_its_error(
    tiny: Path, models: dict[str, Model], engine: str
) -> None:
    given, good = batch(MIXED), [0, 2, 5]
    embedded = Embed(tiny, engine=engine, pool="mean", normalize=True)(given)
    assert [*embedded] == ["id", "text", "embedding", "error"]
    assert embedded["embedding"].dtype == np.float32
    assert embedded["error"].tolist() == WORDS
    vectors = models[engine].embed(FINE, pool="mean", normalize=True)
    np.testing.assert_array_equal(embedded["embedding"][good], vectors)
    assert np.isnan(embedded["embedding"][[1, 3, 4]]).all()

    scored = Score(tiny, engine=engine)(given)
    scores = models[engine].score(FINE)
    assert scored["error"].tolist() == WORDS
    assert scored["log_probability"][good].tolist() == [score.log_probability for score in scores]
    assert scored["perplexity"][good].tolist() == [score.perplexity for score in scores]
    assert scored["scored"].tolist() == [1, 0, 4, 0, 0, 3]
    assert math.isnan(scored["perplexity"][1])

    generate = Generate(tiny, engine=engine, length=9, temperature=1.5, seed=7, stop=["月"])
    written = generate(given)
    options: Any = {"temperature": 1.5, "seed": 7, "stop": ["月"]}
    assert written["generated"][good].tolist() == [models[engine].generate(t, 9, **options) for t in FINE]
    assert written["generated"][[1, 3, 4]].tolist() == [None] * 3
    assert [error and error.replace("prompt", "text") for error in written["error"]] == WORDS
    assert given.keys() == {"id", "text"}, "what was given is not changed"


def test_a_row_does_not_depend_on_its_batch(tiny: Path) -> None:
    generate = Generate(tiny, length=20, temperature=1.5, seeds="id")
    texts = ["分开", "雨后", "分开", "月"] * 3
    whole = generate(batch(texts))["generated"].tolist()
    halves = [
        generate({"id": np.arange(i, i + 4), "text": np.array(texts[i : i + 4])})["generated"].tolist()
        for i in range(0, 12, 4)
    ]
    assert [text for half in halves for text in half] == whole
    assert len(set(whole)) > 8
    assert whole[5] == generate.model.generate(texts[5], 20, temperature=1.5, seed=5)


def test_unknown_characters_are_skipped_on_request(tiny: Path, models: dict[str, Model]) -> None:
    result = Embed(tiny, column="t", unknown="skip")({"t": np.array(["分爱开", "爱"])})
    np.testing.assert_array_equal(result["embedding"][0], models["litert"].embed("分开"))
    assert result["error"].tolist()[1].startswith("the text has no character of the vocabulary")


def test_a_row_that_gives_no_number_has_its_error(poisoned: Path) -> None:
    embed = Embed(poisoned)
    poison = embed.model.vocabulary.tokens[5]  # type: ignore[union-attr]
    result = embed(batch(["分开", poison + "分", "雨后"]))
    assert [error is None for error in result["error"]] == [True, False, True]
    assert result["error"][1].startswith("state 'h' holds nan after 2 steps of model")
    assert np.isfinite(result["embedding"][[0, 2]]).all()


def test_no_rows(tiny: Path) -> None:
    assert Embed(tiny)(batch([]))["embedding"].shape == (0, 8)
    for task in TASKS.values():
        result = task(tiny)(batch([]))
        assert {len(column) for column in result.values()} == {0}


@pytest.mark.parametrize("task", TASKS)
def test_it_is_pickled_and_loads_its_bundle_there(tiny: Path, task: str) -> None:
    made = TASKS[task](tiny)
    data = pickle.dumps(made)
    assert len(data) < 20_000
    program = (
        "import pickle, sys, numpy as np\n"
        "made = pickle.loads(sys.stdin.buffer.read())\n"
        "result = made({'text': np.array(['分开', '爱'])})\n"
        "assert not {'ray', 'pyarrow', 'pandas', 'tensorflow'} & {*sys.modules}\n"
        "sys.stdout.buffer.write(pickle.dumps(result))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    expected = made({"text": np.array(["分开", "爱"])})
    found = pickle.loads(result.stdout)
    assert [*found] == [*expected]
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column)


def test_what_cannot_be_meant(tiny: Path) -> None:
    with pytest.raises(UsageError, match="the batch has no column 'poem'; it has 'id', 'text'"):
        Embed(tiny, column="poem")(batch(FINE))
    with pytest.raises(UsageError, match="the batch has a column 'error' already; rename it"):
        Score(tiny)({"error": np.zeros(1), "text": np.array(["分开"])})
    with pytest.raises(UsageError, match="unknown is 'drop'; expected 'error' or 'skip'"):
        Score(tiny, unknown="drop")
    with pytest.raises(UsageError, match="pool is 'max'"):
        Embed(tiny, pool="max")
    with pytest.raises(UsageError, match="temperature is -1"):
        Generate(tiny, temperature=-1)
    with pytest.raises(UsageError, match="seed is -3"):
        Generate(tiny, seed=-3)
    with pytest.raises(UsageError, match="seed is -1"):
        Generate(tiny, seeds="id")({"id": np.array([-1]), "text": np.array(["分"])})
