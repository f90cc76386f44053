"""A wheel with the engine native compiled: its platform, its size, and that it needs no compiler."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from steprnn.runtime.engines.native.library import FLAGS

pytest.importorskip("hatchling")
pytest.importorskip("build")

ROOT = Path(__file__).parents[1]
HERE = {"x86_64": "manylinux_2_17_x86_64", "aarch64": "manylinux_2_17_aarch64"}
LIBRARY = "steprnn/runtime/engines/native/libsteprnn"
MOST = 1_000_000  # bytes


def built(folder: Path, **environment: str) -> Path:
    """The wheel, and nothing beside it: all that is there is published."""
    folder = folder / "dist"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    variables = {k: v for k, v in os.environ.items() if k not in ("CC", "STEPRNN_WHEEL")} | environment
    subprocess.run(command, env=variables, cwd=folder.parent, check=True, capture_output=True)
    (wheel,) = folder.iterdir()
    return wheel


def held(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(LIBRARY)]


def test_it_is_compiled_with_the_flags_of_the_engine() -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.FLAGS) == set(FLAGS) - {"-Wall", "-Wextra"}


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in HERE, reason="of another platform")
def test_it_runs_a_program_without_a_compiler(tmp_path: Path) -> None:
    pytest.importorskip("ziglang")
    tag = HERE[platform.machine()]
    wheel = built(tmp_path, STEPRNN_WHEEL=tag)
    assert wheel.name.endswith(f"-py3-none-{tag}.whl")
    assert wheel.stat().st_size < MOST
    assert held(wheel) == [f"{LIBRARY}.so"]
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    script = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ziglang" else find(name, *rest)
import numpy as np
from steprnn.runtime.engines.native import library, text
from steprnn.runtime import Sampling
assert library.compiler() is None, library.compiler()
assert library.available()
sampler = text.NativeSampler(Sampling(temperature=4.0, top_k=5), 7, [9, 19], 20)
logits = np.array([((37 * i) % 101) / 8 - 6 for i in range(20)], np.float32)
print([sampler.choose(logits) for _ in range(10)])
"""
    environment = {"PATH": "", "PYTHONPATH": str(tmp_path / "installed"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "[8, 19, 16, 19, 16, 8, 19, 16, 19, 8]\n", done.stderr  # as docs/sampling.md has it
    assert not (tmp_path / ".cache").exists()


@pytest.mark.parametrize("given", ["PATH", "STEPRNN_WHEEL"])
def test_without_a_compiler_it_is_pure_and_where_that_is_wanted(tmp_path: Path, given: str) -> None:
    wheel = built(tmp_path, **{given: {"PATH": str(tmp_path), "STEPRNN_WHEEL": "any"}[given]})
    assert wheel.name.endswith("-py3-none-any.whl")
    assert held(wheel) == []
    assert "steprnn/runtime/engines/native/steprnn.c" in zipfile.ZipFile(wheel).namelist()


def test_another_platform_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        built(tmp_path, STEPRNN_WHEEL="amiga")
    assert b"STEPRNN_WHEEL is 'amiga'; expected one of: any, manylinux_2_17_x86_64" in error.value.stderr
