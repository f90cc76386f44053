"""What a reader copies passes mypy --strict, and a misspelt option does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# What the words around the blocks imply.
BEFORE = {
    "README.md": "",
    "docs/foreign.md": "import numpy as np\n\nframe = np.zeros((1, 576), np.float32)\n",
    "docs/embedding.md": "",
}

RIGHT = """\
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

from steprnn.export import Step, assert_parity, export
from steprnn.runtime import LogitsProcessor, Options, Score, __version__, load


def quiet(logits: NDArray[np.float32], tokens: object) -> None:
    logits[0] = -np.inf


processor: LogitsProcessor = quiet
options: Options = {"temperature": 0.8, "seed": 7, "stop": ["。"], "logits_processor": processor}
model = load("lyrics.bundle")
assert_type(model.generate("分开"), str)
assert_type(model.generate("分开", 50, **options), str)
assert_type(model.generate("分开", n=2, top_k=20), list[str])
assert_type(model.generate(["分开", "雨"], 50, **options), list[str])
assert_type(model.generate(iter(["分开"]), 50), Iterator[str])
assert_type(model.score("分开"), Score)
assert_type(model.score(["分开"]), list[Score])
assert_type(model.score(iter(["分开"])), Iterator[Score])
assert_type(model.embed("分开"), NDArray[np.float32])
assert_type(model.embed(["分开"], pool="mean", normalize=True), NDArray[np.float32])
assert_type(model.embed(iter(["分开"])), Iterator[NDArray[np.float32]])
assert_type(next(model.stream("分开", repeat_penalty=1.1)), str)
assert_type(model.session().step(3), NDArray[np.float32] | dict[str, NDArray[np.float32]])
assert_type(__version__, str)
"""

# Each line by itself, with the words of what mypy says of it.
WRONG = {
    'model.generate("分开", bogus=3)': 'argument "bogus" for overloaded function "generate" of "Model"',
    'model.generate("分开", n=2, bogus=3)': 'argument "bogus" for overloaded function "generate" of "Model"',
    'model.generate(["分开"], bogus=3)': 'argument "bogus" for overloaded function "generate" of "Model"',
    'model.stream("分开", bogus=3)': 'Unexpected keyword argument "bogus" for "stream" of "Model"',
    'model.astream("分开", bogus=3)': 'Unexpected keyword argument "bogus" for "astream" of "Model"',
    'model.generate("分开", top_k=0.5)': 'No overload variant of "generate" of "Model" matches',
    'model.stream("分开", top_k=0.5)': 'Argument "top_k" to "stream" of "Model" has incompatible type',
    'model.astream("分开", top_k=0.5)': 'Argument "top_k" to "astream" of "Model" has incompatible type',
    "model.session().step(3).shape": 'Item "dict[str, ',
    "from steprnn.runtime import lode": 'Module "steprnn.runtime" has no attribute "lode"',
    "from steprnn.export import exprot": 'Module "steprnn.export" has no attribute "exprot"',
}
HEAD = 'from steprnn.runtime import load\n\nmodel = load("lyrics.bundle")\n'

# That page leaves annotations out, and takes its model for one that has a vocabulary.
CONFIG = """\
[mypy]
strict = true

[mypy-embedding]
disallow_untyped_defs = false
disable_error_code = union-attr
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """What mypy says, by file: of the blocks of each page, and of the two files above."""
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("types")
    texts = {"right": RIGHT, "wrong": HEAD + "".join(f"{line}\n" for line in WRONG)}
    for page, before in BEFORE.items():
        blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
        assert blocks, f"{page} has no ```python block"
        texts[Path(page).stem.lower()] = "\n\n".join([before, *blocks])
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    cache = request.config.cache.mkdir("mypy")  # type: ignore[union-attr]
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), "--no-pretty", "--no-error-summary"]
    result = subprocess.run(
        [*command, *(f"{name}.py" for name in texts)],
        cwd=folder,
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=300,
    )
    assert result.returncode in (0, 1), result.stderr
    lines = result.stdout.splitlines()
    assert all(line.partition(".py:")[0] in texts for line in lines), result.stdout
    return {name: [line for line in lines if line.startswith(f"{name}.py:")] for name in texts}


@pytest.mark.parametrize("name", ["readme", "foreign", "embedding", "right"])
def test_what_a_reader_copies_passes(said: dict[str, list[str]], name: str) -> None:
    assert said[name] == []


@pytest.mark.parametrize("line", WRONG)
def test_what_is_misspelt_does_not(said: dict[str, list[str]], line: str) -> None:
    number = len(HEAD.splitlines()) + list(WRONG).index(line) + 1
    errors = [message for message in said["wrong"] if message.startswith(f"wrong.py:{number}: error: ")]
    assert any(WRONG[line] in message for message in errors), said["wrong"]
