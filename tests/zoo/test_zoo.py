"""Published models: exported and held against themselves in their own framework, or refused by name.

Ten of them by default; STEPRNN_ZOO=all runs every one:

    STEPRNN_ZOO=all pytest tests/zoo
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("keras")
pytest.importorskip("tf2onnx")
pytest.importorskip("tf_keras")

from .case import Case
from .families import CASES, recorded
from .judge import measured
from .table import table

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
SAMPLE = """
characters_of_nietzsche imdb_bidirectional dtln_second_core_stateful crn autoencoder sketch_rnn caption_merged
mdn_rnn_that_dreams prices_file lstm_of_keras_2_2
""".split()
RUN = [case for case in CASES if case.name in SAMPLE or os.environ.get("STEPRNN_ZOO") == "all"]
BAD = ("silently wrong", "traceback")


@pytest.mark.filterwarnings("ignore")  # of Keras, about old files and dropped masks
@pytest.mark.parametrize("case", RUN, ids=lambda case: case.name)
def test_published(case: Case, tmp_path: Path) -> None:
    outcome = measured(case, tmp_path)
    words = f"{outcome.kind}: {outcome.message}"
    if case.not_yet is None:
        assert outcome.kind == case.wanted, words
        return
    assert outcome.kind != case.wanted, (
        f"as wanted now: take its not_yet away ({case.not_yet}), and measure it anew"
    )
    if outcome.kind in BAD and recorded()[case.name].kind in BAD:
        pytest.xfail(words)
    assert outcome.kind == "refused wrongly", words


def test_there_are_forty_and_each_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(names) >= 40
    assert len(names) == len({*names})
    assert {*names} >= {*SAMPLE}


def test_each_was_measured_and_what_is_not_as_wanted_says_so() -> None:
    outcomes = recorded()
    assert [*outcomes] == [case.name for case in CASES]
    as_wanted = {case.name: outcomes[case.name].kind == case.wanted for case in CASES}
    assert as_wanted == {case.name: case.not_yet is None for case in CASES}


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == table(), "python tests/zoo/table.py > docs/models.md"
