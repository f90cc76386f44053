"""Many texts at once: in order, as each alone, without end, and never more of them in memory than told."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime import Model, NotFinite, UnknownToken, UsageError, load
from steprnn.runtime.engines import native
from steprnn.runtime.texts import batches, reading

KNOWN = "云不走月在雨后分开 "
TEXTS = st.lists(st.text(KNOWN, min_size=2, max_size=40), max_size=12)
# float32 sums of 8 products, in an order that may depend on the number of rows.
CLOSE = {"rtol": 0, "atol": 2e-6}


def small() -> Any:
    """Windows of five texts or 60 characters, and batches of three, so that short tests meet their ends."""
    patch = pytest.MonkeyPatch()
    patch.setattr(batches, "ROWS", 3)
    patch.setattr(batches, "TEXTS", 5)
    patch.setattr(batches, "CHARACTERS", 60)
    return patch


@pytest.mark.parametrize("engine", ["litert", "onnx"])
@given(texts=TEXTS, whole=st.booleans())
def test_each_of_many_is_what_it_is_alone(
    models: dict[str, Model], engine: str, texts: list[str], whole: bool
) -> None:
    model = models[engine]
    patch = pytest.MonkeyPatch() if whole else small()
    try:
        scores, written = model.score(texts), model.generate(texts, 7, temperature=0.8, seed=3)
        vectors = {pool: model.embed(texts, pool=pool) for pool in ("last", "mean")}
        assert [*model.score(iter(texts))] == scores
        assert [*model.generate(iter(texts), 7, temperature=0.8, seed=3)] == written
        for pool, every in vectors.items():
            assert (every.shape, every.dtype) == ((len(texts), 8), np.float32)
            np.testing.assert_array_equal(every, [*model.embed(iter(texts), pool=pool)] or every)
    finally:
        patch.undo()
    assert len(scores) == len(written) == len(texts)
    for i, text in enumerate(texts):
        alone = model.score(text)
        assert "".join(character for character, _ in scores[i].characters) == text[1:]
        for (_, log), (_, expected) in zip(scores[i].characters, alone.characters, strict=True):
            assert log == pytest.approx(expected, abs=1e-5)
        assert scores[i].log_probability == pytest.approx(alone.log_probability, abs=1e-4)
        assert written[i] == model.generate(text, 7, temperature=0.8, seed=3 + i)
        for pool, every in vectors.items():
            np.testing.assert_allclose(every[i], model.embed(text, pool=pool), **CLOSE)


def test_pools_and_length_are_those_of_the_textbook(model: Model, lstm: Any) -> None:
    texts = ["雨后分开", "云", "月不在 雨后分"]
    chains = [lstm.chain(np.array(model.vocabulary.encode(text))[:, None])["next_h"][:, 0] for text in texts]
    means = np.stack([chain.mean(axis=0) for chain in chains])
    np.testing.assert_allclose(model.embed(texts), [chain[-1] for chain in chains], **CLOSE)
    np.testing.assert_allclose(model.embed(texts, pool="mean"), means, **CLOSE)
    unit = model.embed(texts, pool="mean", normalize=True)
    np.testing.assert_allclose(unit, means / np.linalg.norm(means, axis=1, keepdims=True), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(model.embed(texts[0], pool="mean", normalize=True).shape, (8,))
    assert model.embed([]).shape == (0, 8)
    with pytest.raises(UsageError, match="pool is 'max'; expected 'last' or 'mean'"):
        model.embed(iter(texts), pool="max")  # at the call


def test_scores_are_those_without_the_native_library(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["云不 走月" * 9, "走月", "分开", "雨后" * 65, "在 分"]
    monkeypatch.setattr(native, "is_ready", lambda: True)  # it is built where it is not
    asked: list[int] = []
    with_it = native.log_probabilities
    monkeypatch.setattr(native, "log_probabilities", lambda *given: (asked.append(1), with_it(*given))[1])
    ours = [*model.score(texts), model.score(texts[0])]
    assert asked
    monkeypatch.setattr(native, "is_ready", lambda: False)
    for mine, plain in zip(ours, [*model.score(texts), model.score(texts[0])], strict=True):
        assert mine.log_probability == pytest.approx(plain.log_probability, abs=2e-6 * len(plain.characters))


def test_a_long_text_beside_short_ones_goes_over_a_block(model: Model, lstm: Any) -> None:
    texts = ["云不 走月" * 80, "走月" * 64, "分开", "雨后" * 65, "在 分"]
    for text, score, vector in zip(texts, model.score(texts), model.embed(texts), strict=True):
        tokens = np.array(model.vocabulary.encode(text))
        chain = lstm.chain(tokens[:, None])
        logits = chain["y"][:-1, 0]
        shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = shares[np.arange(len(shares)), tokens[1:]]
        np.testing.assert_allclose([log for _, log in score.characters], expected, rtol=0, atol=2e-5)
        np.testing.assert_allclose(vector, chain["next_h"][-1, 0], **CLOSE)


def test_an_iterator_without_end_is_read_ahead_by_so_much(model: Model) -> None:
    patch, taken = small(), itertools.count()
    endless = ((next(taken), text)[1] for text in itertools.cycle(["分开", "雨后分开", "月不"]))
    try:
        first = [*itertools.islice(model.score(endless), 12)]
        assert next(taken) <= 12 + 5 + 1
        assert first[:3] == first[3:6] == model.score(["分开", "雨后分开", "月不"])
    finally:
        patch.undo()


def test_what_was_given_is_not_kept(model: Model) -> None:
    """Texts and vectors of the windows before are gone once nobody else has them."""

    class Text(str):
        __slots__ = ("__weakref__",)

    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def texts() -> Iterator[str]:
        for _ in range(60):
            alive.add(text := Text("分开雨后"))
            yield text

    patch, most = small(), 0
    gc.freeze()  # else each look takes all that the tests before have left
    try:
        for _ in model.embed(texts()):
            gc.collect()
            most = max(most, len(alive))
    finally:
        gc.unfreeze()
        patch.undo()
    assert 0 < most <= 2 * 5 + 2


def test_a_done_text_leaves_its_batch(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 400 characters beside 63 of two: 64 rows for two steps, and then one alone."""
    sizes: list[int] = []
    lend = model.runners.lend
    monkeypatch.setattr(model.runners, "lend", lambda batch: (sizes.append(batch), lend(batch))[1])
    model.embed(["分开"] * 63 + ["云不" * 200])
    assert sizes == [64, 1]


def test_a_text_that_is_refused_is_named_by_its_place(model: Model) -> None:
    for call in (model.score, model.embed, model.generate):
        with pytest.raises(UnknownToken, match=r"texts\[1\]: '爱' not among the 21 characters") as raised:
            call(["分开", "分爱开"])
        assert raised.value.characters == ("爱",)
        with pytest.raises(UsageError, match=r"texts\[1\]: the (text|prompt) is empty"):
            call(["分开", ""])
        with pytest.raises(UsageError, match=r"texts\[0\]: the text is of type int; expected str$"):
            call([3])
    with pytest.raises(UsageError, match=r"texts\[2\]: the text has one token; a score needs at least 2"):
        model.score(["分开", "雨后", "云"])
    with pytest.raises(UnknownToken, match=r"^'爱' not among"):
        model.generate("分爱", 3, n=2)
    with pytest.raises(UnknownToken, match=r"texts\[1\]: '爱' not among"):
        model.generate(["分", "爱"], 3, n=2)


@pytest.mark.parametrize("text", [None, 5, "分开".encode()])
def test_what_is_no_text_is_told_by_its_type(model: Model, text: Any) -> None:
    for call in (model.score, model.embed, model.generate, partial(model.generate, n=2)):
        with pytest.raises(UsageError) as raised:
            call(text)
        named = f"the text is of type {type(text).__name__}; expected str"
        assert str(raised.value) == f"{named}, or several in a list or an iterator"
    for one in (model.stream, model.astream, model.vocabulary.encode):  # type: ignore[union-attr]
        for wrong in (text, ["分开"]):
            with pytest.raises(
                UsageError, match=rf"^the text is of type {type(wrong).__name__}; expected str$"
            ):
                one(wrong)


def test_the_results_before_a_refused_text_come(model: Model) -> None:
    texts = ["分开", "雨后分开", "爱", "云"]
    for call, fine in (
        (model.score, model.score(texts[:2])),
        (model.embed, model.embed(texts[:2])),
        (model.generate, model.generate(texts[:2])),
    ):
        found = call(iter(texts))
        np.testing.assert_array_equal([next(found), next(found)], fine)
        with pytest.raises(UnknownToken, match=r"^texts\[2\]: '爱' not among"):
            next(found)


def test_unknown_characters_are_left_out_of_what_is_read(model: Model) -> None:
    texts = ["分爱开", "爱雨后分开!", "云爱不"]
    plain = ["分开", "雨后分开", "云不"]
    assert model.score(texts, unknown="skip") == model.score(plain)
    assert model.score(texts[0], unknown="skip") == model.score(plain[0])
    np.testing.assert_array_equal(model.embed(texts, unknown="skip"), model.embed(plain))
    np.testing.assert_array_equal([*model.embed(iter(texts), unknown="skip")], model.embed(plain))
    with pytest.raises(UsageError, match="the text has one token of the vocabulary; a score needs"):
        model.score("分爱", unknown="skip")
    with pytest.raises(UsageError, match="the text has no character of the vocabulary"):
        model.embed("爱", unknown="skip")


def test_a_perplexity_beyond_float64_is_infinite(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_log_probabilities", lambda model, texts: [np.array([-800.0])])
    assert model.score("分开").perplexity == np.inf


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_a_text_that_gives_no_numbers_is_named(poisoned: Path, engine: str) -> None:
    broken = load(poisoned, engine=engine)
    character = broken.vocabulary.tokens[5]
    texts = ["分开", "分" + character + "分", "分开分开"]
    with pytest.raises(NotFinite, match=r"texts\[1\]: the largest logit is nan after 2 steps of model"):
        broken.score(texts)
    with pytest.raises(NotFinite, match=r"texts\[1\]: state 'h' holds nan after 3 steps of model"):
        broken.embed(texts)
    patch = small()
    try:  # one of four that is read alone, in the second batch
        for call, what in ((broken.score, "the largest logit"), (broken.embed, "state 'h'")):
            with pytest.raises(NotFinite, match=rf"^texts\[1\]: {what}"):
                call(["分开分开", character + "分", "分开分", "分开分"])
            with pytest.raises(NotFinite, match=rf"^{what}"):
                call(character + "分")
    finally:
        patch.undo()


def test_prompts_of_an_iterator_are_checked_at_the_call_and_repeated(model: Model) -> None:
    with pytest.raises(UsageError, match="length is -1"):
        model.generate(iter(["分"]), -1)
    patch = small()
    try:
        found = [*model.generate(iter(["分开", "云不走"]), 9, n=4, temperature=1.0, seed=7)]
    finally:
        patch.undo()
    prompts = ["分开"] * 4 + ["云不走"] * 4
    assert found == [model.generate(p, 9, temperature=1.0, seed=7 + i) for i, p in enumerate(prompts)]
