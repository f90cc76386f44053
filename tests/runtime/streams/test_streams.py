"""Streams by key: each is what a session of its own is, whatever steps beside it and wherever it is kept."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprnn.runtime import Model, NotFinite, StateError, UsageError, load
from steprnn.runtime.streams import Key, SQLite, Streams, streams

# The engine may add in another order where it has more rows.
CLOSE = {"rtol": 0, "atol": 2e-6}
KEYS: list[Key] = ["a", "b", b"a", 1, "1", -1, -2, 2**63 - 1, -(2**63), 0, "", "雨"]
CALLS = st.lists(st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 20)), min_size=1), max_size=6)


class Apart:
    """A session for each key."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.sessions: dict[Key, Any] = {}

    def step(self, keys: Iterable[Key], x: Sequence[int]) -> Any:
        ys = []
        for key, token in zip(keys, x, strict=True):
            session = self.sessions.setdefault(key, None) or self.model.session()
            self.sessions[key] = session
            ys.append(session.step(int(token))[0])
        return np.array(ys)


@pytest.mark.parametrize("engine", ["litert", "onnx"])
@pytest.mark.parametrize(("most", "rows"), [(100, 1024), (3, 1024), (5, 2), (1, 1)])
@given(calls=CALLS)
def test_each_key_has_a_stream_of_its_own(
    models: dict[str, Model], engine: str, most: int, rows: int, calls: list[list[tuple[Key, int]]]
) -> None:
    """Also where a key stands twice, and where no more than `most` are in memory."""
    patch = pytest.MonkeyPatch()
    patch.setattr(streams, "MOST_ROWS", rows)
    try:
        many, apart = models[engine].streams(most), Apart(models[engine])
        for call in calls:
            keys, x = zip(*call, strict=True)
            np.testing.assert_allclose(many.step(keys, np.array(x)), apart.step(keys, x), **CLOSE)
        for key in KEYS:
            assert (key in many) == (key in apart.sessions)
            if key in many:
                for name, array in apart.sessions[key].state.tensors.items():
                    np.testing.assert_allclose(many[key].tensors[name], array, **CLOSE)
    finally:
        patch.undo()


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.uint64, np.uint8, "U", "S", object])
def test_keys_of_an_array(model: Model, dtype: Any) -> None:
    keys, x = [7, 3, 7, 120, 0], np.array([1, 2, 3, 4, 5])
    plain = [str(key) if dtype == "U" else str(key).encode() if dtype == "S" else key for key in keys]
    many, expected = model.streams(), model.streams()
    np.testing.assert_array_equal(many.step(np.array(plain, dtype), x), expected.step(plain, x))
    assert plain[0] in many
    np.testing.assert_array_equal(many[plain[3]].tensors["h"], expected[plain[3]].tensors["h"])


def test_ten_thousand_numbers_come_and_go(model: Model) -> None:
    """Enough for the table of numbers to be swept several times; none is taken for another."""
    many, apart, chance = model.streams(most=700), {}, np.random.default_rng(1)
    states = np.zeros(10_000, np.int64)  # how many steps each has taken
    session = model.session()
    for steps in range(8):  # the state after so many steps of token 1 from the beginning
        apart[steps] = session.state.tensors["h"][0]
        session.step(1)
    ids = chance.integers(-(2**63), 2**63 - 1, 10_000)
    for _ in range(60):
        some = chance.choice(10_000, 500, replace=False)
        some = some[states[some] < 7]
        many.step(ids[some], np.ones(len(some), np.int64))
        states[some] += 1
    assert (states > 1).sum() > 5000
    for i in chance.choice(10_000, 300, replace=False):
        if states[i]:
            np.testing.assert_allclose(many[int(ids[i])].tensors["h"][0], apart[states[i]], **CLOSE)
        else:
            assert int(ids[i]) not in many


def test_the_least_recently_used_leave_memory(model: Model) -> None:
    written: list[Key] = []

    class Watched(SQLite):
        def write(self, rows: Iterable[tuple[Key, bytes]]) -> None:
            several = list(rows)
            written.extend(key for key, _ in several)
            super().write(several)

    many = model.streams(most=4, store=Watched())
    many.step(["a", "b", "c", "d"], [1, 2, 3, 4])
    many.step(["a"], [1])
    many.step(["e"], [1])
    assert written == ["b"] or written == ["c"] or written == ["d"]  # of one call each is as recent
    many.step(["f", "g"], [1, 1])
    assert set(written) == {"b", "c", "d"}
    written.clear()
    before = many["b"]  # comes back, and "a" leaves
    assert written == ["a"]
    many.step(["x", "y", "z"], [1, 1, 1])
    written.clear()
    many.step(["w"], [1])
    assert written == []  # "b" took no step since: the store has it
    many.save()
    assert written
    written.clear()
    many.save()
    assert written == []
    np.testing.assert_array_equal(many["b"].tensors["h"], before.tensors["h"])


PROGRAM = """
import os, sys
import numpy as np
from steprnn.runtime import load
many = load(sys.argv[1], engine=sys.argv[2]).streams(most=40, store=sys.argv[3])
begin, end, kill = map(int, sys.argv[4:])
for tick in range(begin, end):
    chance = np.random.default_rng(tick)
    keys = [f"device {k}" if k % 2 else int(k) for k in chance.integers(0, 90, 30)]
    y = many.step(keys, chance.integers(0, 21, 30))
    print(tick, y.tobytes().hex(), flush=True)
    if tick % 4 == 3:
        many.save()
    if tick == kill:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_killed_and_begun_again_it_gives_the_same_bits(tiny: Path, tmp_path: Path, engine: str) -> None:
    """From the last `save` on: what was spilled to the store since does not count."""

    def run(store: str, begin: int, kill: int) -> tuple[int, list[str]]:
        argv = [sys.executable, "-c", PROGRAM, tiny, engine, tmp_path / store, begin, 16, kill]
        result = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
        return result.returncode, result.stdout.splitlines()

    code, whole = run("whole.db", 0, -1)
    assert (code, len(whole)) == (0, 16)
    code, first = run("killed.db", 0, 9)
    assert (code, first) == (-signal.SIGKILL, whole[:10])
    assert run("killed.db", 8, -1) == (0, whole[8:])


def test_a_state_goes_over_to_a_session_and_back(models: dict[str, Model]) -> None:
    many = models["litert"].streams()
    many.step(["a", "b"], [1, 2])
    session = models["onnx"].session(many["b"])
    many["c"] = session.state
    np.testing.assert_array_equal(many.step(["b"], [3]), many.step(["c"], [3]))
    np.testing.assert_allclose(
        session.step(3), many.step(["a"], [3]) * 0 + session_after(models, [2, 3]), **CLOSE
    )
    with pytest.raises(KeyError, match="'z'"):
        many["z"]
    del many["b"], many["z"]
    assert "b" not in many
    np.testing.assert_allclose(many.step(["b"], [5]), models["onnx"].session().step(5), **CLOSE)
    with pytest.raises(StateError, match="several rows"):
        many["a"] = models["onnx"].session(batch=2).state


def session_after(models: dict[str, Model], tokens: Sequence[int]) -> Any:
    session = models["onnx"].session()
    return [session.step(token) for token in tokens][-1]


def test_a_key_that_is_deleted_does_not_come_back_from_the_store(model: Model, tmp_path: Path) -> None:
    with model.streams(most=2, store=tmp_path / "s.db") as many:
        many.step(["a", "b", "c"], [1, 2, 3])
        many.save()
        del many["a"], many["c"]
        assert "a" not in many
        many.save()
    with model.streams(store=tmp_path / "s.db") as again:
        assert [key in again for key in "abc"] == [False, True, False]


@pytest.mark.parametrize("where", [0, 1, 5])
def test_no_stream_takes_a_step_where_one_gives_no_number(poisoned: Path, where: int) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(streams, "MOST_ROWS", 2)
    try:
        many = load(poisoned).streams(most=3)
    finally:
        patch.undo()
    keys: list[Key] = ["a", "b", "c", "d", "a", "e"]
    many.step(keys, [1] * 6)
    before = {key: many[key].to_bytes() for key in keys}
    x = [1] * 6
    x[where] = 5
    with pytest.raises(NotFinite, match=rf"^output 'y' of key {keys[where]!r} is no number of model"):
        many.step(keys, x)
    assert {key: many[key].to_bytes() for key in keys} == before


@pytest.mark.parametrize(
    ("keys", "x", "words"),
    [
        ([1.5], [1], "the key 1.5 is of type float; expected str, int or bytes"),
        ([True], [1], "the key True is of type bool; expected str, int or bytes"),
        ([None], [1], "the key None is of type NoneType; expected str, int or bytes"),
        ([["a"]], [1], r"the key \['a'\] is of type list; expected str, int or bytes"),
        ([2**63], [1], "the key 9223372036854775808 is beyond 64 bits"),
        (["\ud800"], [1], "half of a surrogate pair"),
        (["a", "b"], [1], r"input 'x' has shape \(1,\), expected \(2,\)"),
        (["a"], [21], "input 'x' has a token outside 0..20"),
    ],
)
def test_what_cannot_be_meant(model: Model, keys: list[Any], x: list[int], words: str) -> None:
    many = model.streams()
    with pytest.raises(UsageError, match=words):
        many.step(keys, x)
    assert repr(many).endswith(": 0 of at most 100,000 in memory>")
    with pytest.raises(UsageError, match="most is 0; expected at least 1"):
        model.streams(0)
    with pytest.raises(UsageError, match=r"most is 5\.0; expected a whole number, at least 1"):
        model.streams(5.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", ["cellar", b"cellar", 5, None])
def test_one_key_that_is_no_list_is_refused(model: Model, keys: Any) -> None:
    with pytest.raises(UsageError, match=rf"^keys is of type {type(keys).__name__}; expected a list of them"):
        model.streams().step(keys, [1])


def test_keys_are_looked_up_and_not_listed(model: Model) -> None:
    many = model.streams()
    many.step(["a", 0, 1], [1, 2, 3])
    with pytest.raises(UsageError, match=r"do not list their keys, .*; look one up with streams\[key\]"):
        list(many)
    assert "a" in many
    assert many, "no len() that could be 0"


def test_a_store_that_is_none_or_open_elsewhere_or_damaged(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 20)
    with pytest.raises(StateError, match=r"streams\.db is not a store of streams \(file is not a database\)"):
        model.streams(store=path)
    path.unlink()
    for wrong in (tmp_path / "none" / "streams.db", tmp_path):
        told = (
            r" cannot be opened \(unable to open database file\); expected a file, in a folder that there is"
        )
        with pytest.raises(StateError, match=re.escape(str(wrong)) + told):
            model.streams(store=wrong)
    with pytest.raises(UsageError, match="store is of type int; expected a path or a Store"):
        model.streams(store=5)  # type: ignore[arg-type]
    with model.streams(store=path) as many:
        many.step(["a", "b"], [1, 2])
        many.save()
        with pytest.raises(StateError, match="is open already, here or in another process; close it there"):
            model.streams(store=path)
    database = sqlite3.connect(path)
    (row,) = database.execute("SELECT state FROM streams WHERE key = 'a'").fetchone()
    database.execute("UPDATE streams SET state = ? WHERE key = 'a'", [row[:-1] + bytes([row[-1] ^ 1])])
    database.execute("UPDATE streams SET state = ? WHERE key = 'b'", [b"another." + row[8:]])
    database.commit()
    database.close()
    with model.streams(store=path) as many:
        with pytest.raises(StateError, match="the state of key 'a' is damaged in the store"):
            many.step(["c", "a"], [1, 1])
        with pytest.raises(StateError, match="the state of key 'b' belongs to another model than"):
            many.step(["b"], [1])
        del many["a"]
        many.step(["c", "a"], [1, 1])


def test_a_store_of_ones_own(model: Model) -> None:
    class Dictionary:
        def __init__(self) -> None:
            self.rows: dict[Key, bytes] = {}
            self.saved = 0

        def read(self, keys: Sequence[Key]) -> dict[Key, bytes]:
            return {key: self.rows[key] for key in keys if key in self.rows}

        def write(self, rows: Iterable[tuple[Key, bytes]]) -> None:
            self.rows.update(rows)

        def delete(self, keys: Sequence[Key]) -> None:
            for key in keys:
                self.rows.pop(key, None)

        def save(self) -> None:
            self.saved += 1

        def close(self) -> None:
            self.saved = -1

    store = Dictionary()
    many = Streams(model, 2, store)
    expected = model.streams()
    for tick in range(4):
        keys = ["a", "b", 3, "c"]
        np.testing.assert_allclose(many.step(keys, [tick] * 4), expected.step(keys, [tick] * 4), **CLOSE)
    many.save()
    assert (set(store.rows), store.saved) == ({"a", "b", 3, "c"}, 1)
    again = Streams(model, 9, store)
    for key in keys:
        assert again[key].to_bytes() == many[key].to_bytes()
    many.close()
    assert store.saved == -1


def test_frames_of_a_signal_model(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    from steprnn.export import export

    keras.utils.set_random_seed(3)
    inputs = keras.Input((None, 3))
    states = keras.layers.LSTM(5, return_sequences=True)(keras.layers.GRU(4, return_sequences=True)(inputs))
    export(keras.Model(inputs, [states, inputs]), tmp_path / "b", formats=("onnx",), variants=("float32",))
    model = load(tmp_path / "b")
    many, frames = model.streams(), np.random.default_rng(2).standard_normal((4, 2, 3)).astype(np.float32)
    apart = [model.session(), model.session()]
    for frame in frames:
        found = many.step(["a", 7], frame)
        assert isinstance(found, dict)
        for row, session in enumerate(apart):
            for name, y in session.step(frame[row]).items():  # type: ignore[union-attr]
                np.testing.assert_allclose(found[name][row : row + 1], y, **CLOSE)
    before = many["a"].to_bytes()
    bad = frames[0].copy()
    bad[1, 2] = np.nan
    with pytest.raises(NotFinite, match=r"output '\w+' of key 7 is no number of model"):
        many.step(["a", 7], bad)
    assert many["a"].to_bytes() == before
    with pytest.raises(UsageError, match=r"has shape \(3,\), expected \(2, 3\)"):
        many.step([1, 2], np.ones(3))


def test_a_graph_file_has_none(tiny: Path) -> None:
    model = load(tiny / "step.onnx", states={"h": "next_h", "c": "next_c"})
    with pytest.raises(
        UsageError, match="a graph file has no streams, as its batch is fixed; export a bundle"
    ):
        model.streams()


def test_importing_the_runtime_leaves_sqlite_alone() -> None:
    code = "import sys, steprnn.runtime; print('sqlite3' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
