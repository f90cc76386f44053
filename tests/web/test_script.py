"""The page's scripts in Node, against Python: the random numbers, the draw, npz files, hashes, names."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Sampling
from steprnn.runtime.package.web import SITE
from steprnn.runtime.sampling.sampler import Sampler
from steprnn.runtime.texts.stops import until

HOSTILE = json.loads((Path(__file__).parents[1] / "hostile_names.json").read_text(encoding="utf-8"))
DOCUMENT = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (all off|`.*?) \| ?(\d*) \| ([\d ]+) \|$", re.MULTILINE)
NAMES = {
    "temperature": "temperature",
    "top_k": "topK",
    "top_p": "topP",
    "min_p": "minP",
    "repeat_penalty": "repeatPenalty",
    "repeat_last_n": "repeatLastN",
}


@pytest.fixture(scope="session")
def node() -> Callable[[list[dict[str, Any]]], list[Any]]:
    """Have Node carry out jobs of choose.mjs."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node.js is not installed")
    script = str(Path(__file__).with_name("choose.mjs"))

    def run(jobs: list[dict[str, Any]]) -> list[Any]:
        ended = subprocess.run(
            [program, script, str(SITE)], input=json.dumps(jobs), capture_output=True, text=True, check=True
        )
        return json.loads(ended.stdout)

    return run


def test_it_knows_every_option_that_python_has() -> None:
    """One that it did not know would be left out of a text without a word."""
    source = (SITE / "sampling.js").read_text(encoding="utf-8")
    defaults = source.partition("DEFAULTS = Object.freeze({")[2].partition("}")[0]
    found = {name: float(value) for name, value in re.findall(r"(\w+): ([\d.]+),", defaults)}
    assert found == {NAMES[field.name]: field.default for field in fields(Sampling)}


def script_options(options: dict[str, float]) -> dict[str, float]:
    return {NAMES[name]: value for name, value in options.items()}


def test_random_numbers_are_those_of_python(node: Callable[..., list[Any]]) -> None:
    seeds = [0, 1, 7, 2**32 - 1, 2**32, 2**32 + 1, 2**53 + 1, 2**64 - 1, 3**40, 2**20000 + 5]
    expected = []
    for seed in seeds:
        generator = random.Random(seed)
        expected.append([generator.random() for _ in range(700)])
    assert node([{"job": "random", "seed": hex(seed), "count": 700} for seed in seeds]) == expected


def test_the_golden_cases_of_the_document(node: Callable[..., list[Any]]) -> None:
    rows = ROW.findall(DOCUMENT)
    assert len(rows) == 12
    logits = [[((37 * i) % 101) / 8 - 6 for i in range(20)]] * 10
    jobs, expected = [], []
    for words, seed, tokens in rows:
        options = {name: float(value) for name, value in re.findall(r"`(\w+)` ([\d.]+)", words)}
        assert options or words == "all off"
        jobs.append(
            {
                "job": "choose",
                "options": script_options(options),
                "seed": seed or "0",
                "recent": [9, 19],
                "logits": logits,
            }
        )
        expected.append([int(token) for token in tokens.split()])
    ties = {"job": "choose", "recent": [], "logits": [[1, 3, 2, 3, 0, 3]] * 6, "seed": "0"}
    jobs += [ties | {"options": {}}, ties | {"options": {"temperature": 1, "topK": 2}}]
    expected += [[1] * 6, [3, 3, 1, 1, 3, 1]]
    edges = [
        ([2, 2.2], {"repeat_penalty": 1.1}, [1], 1),
        ([1, 3], {"repeat_penalty": 3}, [1], 0),
        ([0.3, 0.1], {"repeat_penalty": 3}, [0], 0),
        ([3e38, 2.9e38], {"repeat_penalty": 0.01}, [0, 1], 0),
    ]
    edge = {"job": "choose", "seed": "0"}
    jobs += [edge | {"options": script_options(o), "recent": r, "logits": [v]} for v, o, r, _ in edges]
    expected += [[token] for *_, token in edges]
    for second, kept in ((-0.6931471228599548, {0, 1}), (-0.6931471824645996, {0})):
        options = {"temperature": 1000, "min_p": 0.5}
        logits = [[0, second]] * 100
        sampler = Sampler(Sampling(**options), 0)
        drawn = [sampler.choose(np.array(row, np.float32)) for row in logits]
        assert set(drawn) == kept
        jobs.append(edge | {"options": script_options(options), "recent": [], "logits": logits})
        expected.append(drawn)
    assert node(jobs) == expected


def test_any_draw_is_that_of_python(node: Callable[..., list[Any]]) -> None:
    """Random logits, options and seeds: both are the float64 of the document."""
    generator = np.random.default_rng(5)
    jobs, expected = [], []
    for case in range(300):
        options = {
            "temperature": float(generator.choice([0.0, 0.3, 0.8, 1.0, 2.5])),
            "top_k": int(generator.choice([0, 1, 5, 40, 5000])),
            "top_p": float(generator.choice([1.0, 0.95, 0.5, 0.01])),
            "min_p": float(generator.choice([0.0, 0.05, 0.7, 1.0])),
            "repeat_penalty": float(generator.choice([1.0, 1.3, 0.8])),
            "repeat_last_n": int(generator.choice([0, 1, 8, 64])),
        }
        size = int(generator.choice([1, 7, 200]))
        logits = (generator.normal(size=(20, size)) * generator.choice([0.5, 3, 10])).astype(np.float32)
        recent = generator.integers(0, size, 5).tolist()
        sampler = Sampler(Sampling(**options), case, recent)
        expected.append([sampler.choose(row) for row in logits])
        jobs.append(
            {
                "job": "choose",
                "options": script_options(options),
                "seed": str(case),
                "recent": recent,
                "logits": logits.tolist(),
            }
        )
    assert node(jobs) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1}, "temperature is -1; expected a number from 0 to 1000"),
        ({"topK": 1.5}, "topK is 1.5; expected a whole number from 0 to 2147483647"),
        ({"topP": 0}, "topP is 0; expected a number above 0 and at most 1"),
        ({"minP": 1.5}, "minP is 1.5; expected a number from 0 to 1"),
        ({"repeatPenalty": 0}, "repeatPenalty is 0; expected a number from 0.01 to 100"),
        ({"repeatPenalty": 101}, "repeatPenalty is 101; expected a number from 0.01 to 100"),
        ({"topK": 2**31}, "topK is 2147483648; expected a whole number from 0 to 2147483647"),
        ({"temperature": 1001}, "temperature is 1001; expected a number from 0 to 1000"),
        ({"repeatLastN": "many"}, "repeatLastN is many; expected a whole number from 0 to 2147483647"),
    ],
)
def test_options_that_cannot_be_meant(
    node: Callable[..., list[Any]], options: dict[str, Any], words: str
) -> None:
    job = {"job": "choose", "options": options, "seed": "0", "recent": [], "logits": []}
    assert node([job]) == [{"error": "UsageError", "message": words}]


@pytest.mark.parametrize("options", [{}, {"temperature": 1}, {"temperature": 1, "topP": 0.5}])
@pytest.mark.parametrize(
    ("bad", "top"), [("NaN", "NaN"), ("Infinity", "Infinity"), ("-Infinity", "-Infinity")]
)
def test_logits_that_are_no_numbers_have_no_token(
    node: Callable[..., list[Any]], options: dict[str, Any], bad: str, top: str
) -> None:
    row = [bad] * 3 if top == "-Infinity" else [1, bad, 3]  # as words: JSON has no such numbers
    job = {"job": "choose", "options": options, "seed": "0", "recent": [], "logits": [row]}
    message = f"the largest logit is {top}; expected finite numbers: look at its weights and at what went in"
    assert node([job]) == [{"error": "NotFinite", "message": message}]


def test_sha256_where_the_browser_has_none(node: Callable[..., list[Any]]) -> None:
    samples = [bytes(i * 7 % 256 for i in range(n)) for n in (0, 1, 3, 55, 56, 63, 64, 65, 119, 120, 5000)]
    expected = [hashlib.sha256(data).hexdigest() for data in samples]
    assert node([{"job": "sha256", "hex": data.hex()} for data in samples]) == expected


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(node: Callable[..., list[Any]], save: Callable[..., None]) -> None:
    arrays = {
        "h": np.arange(8, dtype=np.float32) / 3,
        "l_c": np.ones((2, 3), np.float32),
        "": np.zeros(3, np.uint8),
    }
    buffer = io.BytesIO()
    save(buffer, **arrays)
    (found,) = node([{"job": "npz", "hex": buffer.getvalue().hex(), "most": 8 * 4 + 6 * 4 + 3}])
    assert found == {name: [list(a.shape), a.ravel().tolist()] for name, a in arrays.items()}


@pytest.mark.parametrize("kind", ["nothing", "noise", "float64", "cut"])
def test_what_is_no_npz(node: Callable[..., list[Any]], kind: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, h=np.ones(4, np.float64))
    data = {
        "nothing": b"",
        "noise": b"noise" * 20,
        "float64": buffer.getvalue(),
        "cut": buffer.getvalue()[:-30],
    }
    (found,) = node([{"job": "npz", "hex": data[kind].hex(), "most": 32}])
    assert found["error"] == "BundleError"
    assert found["message"].startswith("file.npz is not an .npz file that this page reads (")


def test_an_npz_that_unpacks_to_more_than_it_could_mean(node: Callable[..., list[Any]]) -> None:
    """A gigabyte of zeros in a megabyte: it is given up once it is longer than the states are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("h.npy", "w") as entry:
        for _ in range(2**10):
            entry.write(bytes(2**20))
    data = buffer.getvalue().hex()
    began = time.monotonic()
    twice = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "w") as file:
        warnings.simplefilter("ignore")
        file.writestr("h.npy", b"1")
        file.writestr("h.npy", b"1")
    bomb, double = node([{"job": "npz", "hex": h, "most": 64} for h in (data, twice.getvalue().hex())])
    assert "it holds more than the 64 bytes of arrays that the manifest tells of" in bomb["message"]
    assert "it holds h.npy twice" in double["message"]
    assert time.monotonic() - began < 5, "to unpack it all takes longer"


def test_a_file_that_does_not_end_is_given_up(node: Callable[..., list[Any]]) -> None:
    record = {"files": {"file": {"bytes": 1000, "sha256": "0" * 64}}}
    assert node([{"job": "longer", "record": record, "size": 1000}]) == [True]


def test_stop_strings_end_a_text_where_they_do_in_python(node: Callable[..., list[Any]]) -> None:
    generator = random.Random(3)
    jobs = []
    for _ in range(300):
        pieces = [generator.choice("ab𠮷") for _ in range(generator.randrange(12))]
        stops = ["".join(generator.choices("ab𠮷", k=generator.randint(1, 4))) for _ in range(2)]
        jobs.append({"job": "until", "pieces": pieces, "stops": stops})
    assert node(jobs) == ["".join(until(job["pieces"], job["stops"])) for job in jobs]


def with_file(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """A job that opens the manifest with one more file in it."""
    files = manifest["files"] | {name: {"bytes": 1, "sha256": "0"}}
    return {"job": "manifest", "record": manifest | {"files": files}}


def test_a_name_outside_the_bundle_is_refused_as_in_python(
    node: Callable[..., list[Any]], tiny: Path
) -> None:
    manifest = json.loads((tiny / "manifest.json").read_text(encoding="utf-8"))
    found = node([with_file(manifest, name) for name in HOSTILE])
    words = "manifest.json names the file {}, outside the bundle; do not trust it"
    assert found == [
        {"error": "BundleError", "message": words.format(json.dumps(name, ensure_ascii=False))}
        for name in HOSTILE
    ]
    inside = ["a/b.c", "..a", "con_", "saved_model/variables/x.data-00000-of-00001", "字"]
    for name, files in zip(inside, node([with_file(manifest, name) for name in inside]), strict=True):
        assert sorted(files) == sorted([*manifest["files"], name])
