"""What the packages offer by name: all of it, nothing beside it, and nothing heavy before it is used."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import steprnn.runtime

ROOT = Path(__file__).parents[2]


def printed(code: str, *options: str, cwd: Path | None = None) -> str:
    """What a fresh Python prints."""
    command = [sys.executable, *options, "-c", code]
    result = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", cwd=cwd)
    return result.stdout.strip()


@pytest.mark.parametrize("package", ["runtime", "export"])
def test_all_is_every_public_name(package: str) -> None:
    if package == "export":
        pytest.importorskip("tensorflow")
    module = importlib.import_module(f"steprnn.{package}")
    names = module.__all__
    assert names == sorted(set(names))
    for name in names:
        assert getattr(module, name) is not None, name
    public = {name for name in dir(module) if not name.startswith("_")}
    own = {n for n in public if getattr(getattr(module, n), "__module__", "").startswith("steprnn.")}
    assert own - set(names) == set(), "defined or imported for users, and not in __all__"
    assert set(names) - public == set(), "in __all__, and dir() does not show it"


def test_dir_shows_what_export_imports_when_it_is_used() -> None:
    code = "import json, sys, steprnn.export as e; print(json.dumps([dir(e), 'tensorflow' in sys.modules]))"
    names, heavy = json.loads(printed(code))
    assert {"Step", "StepSpec", "TensorSpec", "assert_parity", "export"} <= set(names)
    assert not heavy


@pytest.mark.parametrize("package", ["runtime", "export"])
def test_a_name_that_there_is_not(package: str) -> None:
    module = importlib.import_module(f"steprnn.{package}")
    with pytest.raises(AttributeError, match=rf"module 'steprnn\.{package}' has no attribute 'lode'"):
        _ = module.lode
    with pytest.raises(ImportError, match="cannot import name 'lode'"):
        exec(f"from steprnn.{package} import lode")


def test_the_version_is_that_of_the_package() -> None:
    assert steprnn.runtime.__version__ == importlib.metadata.version("steprnn")
    code = "import sys, steprnn.runtime as r; print('importlib.metadata' in sys.modules, r.__version__)"
    assert printed(code) == f"False {importlib.metadata.version('steprnn')}"


def test_the_version_of_a_folder_that_nobody_installed() -> None:
    """-S leaves out site-packages, with the metadata of all that is installed; NumPy's folder is given."""
    import numpy as np

    folders = [str(ROOT / "runtime"), str(Path(np.__file__).parents[1])]
    code = (
        f"import sys; sys.path[:0] = {folders!r}\n"
        "import steprnn.runtime, importlib.metadata as m\n"
        f"sys.path.remove({folders[1]!r})\n"
        "print(steprnn.runtime.__version__)"
    )
    assert printed(code, "-S", cwd=ROOT / "docs") == "0+unknown"
