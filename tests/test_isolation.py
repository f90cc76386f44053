"""The runtime stands alone, and the packages know of each other in one direction only."""

from __future__ import annotations

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx", "matplotlib")
HEAVY = (*LIBRARIES, "steprnn.train", "steprnn.export")
ENGINES = ("onnxruntime", "ai_edge_litert")


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh Python holds after some code."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code + report], capture_output=True, check=True, text=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def of(packages: tuple[str, ...], modules: set[str]) -> set[str]:
    return {m for m in modules if any(m == p or m.startswith(p + ".") for p in packages)}


@pytest.mark.parametrize("engine", ["litert", "onnx"])
def test_generating_loads_no_tensorflow_and_only_its_own_engine(tiny: Path, engine: str) -> None:
    modules = loaded_by(
        "from steprnn.runtime import load\n"
        f"model = load({str(tiny)!r}, engine={engine!r})\n"
        "assert len(model.generate('分开', 20)) == 22\n"
        "model.generate('分开', 5, n=3); model.score('分开'); model.embed('分开'); model.session().step(1)\n"
    )
    assert of(HEAVY, modules) == set()
    used = of(ENGINES, modules)
    assert {m.partition(".")[0] for m in used} == {"onnxruntime" if engine == "onnx" else "ai_edge_litert"}


def test_importing_the_runtime_loads_no_engine() -> None:
    modules = loaded_by("import steprnn.runtime")
    assert "steprnn.runtime.model" in modules
    assert of(ENGINES + HEAVY, modules) == set()


@pytest.mark.parametrize(
    "command",
    [None, "train", "export", "check", "generate", "score", "embed", "bench", "package", "serve", "demo"],
)
def test_help_loads_nothing_heavy(command: str | None) -> None:
    """Every command's module is imported for it, so none may import what only its extra brings."""
    argv = ["--help"] if command is None else [command, "--help"]
    modules = loaded_by(
        "from steprnn.runtime.cli import main\n"
        f"try: main({argv!r})\n"
        "except SystemExit as stop: assert not stop.code\n"
    )
    assert of(ENGINES + LIBRARIES + ("starlette", "uvicorn"), modules) == set()
    if command is None:
        assert {"steprnn.train.command", "steprnn.export.command"} <= modules


FORBIDDEN = {
    "runtime": HEAVY,
    "train": ("steprnn.export", "tf2onnx", "onnx", "onnxruntime", "ai_edge_litert"),
    "export": ("steprnn.train",),
}


def imports(path: Path, package: str) -> set[str]:
    """Absolute names of all that a file imports, within functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("name", FORBIDDEN)
def test_imports_point_one_way(name: str) -> None:
    source = ROOT / name / "steprnn"
    files = sorted(source.rglob("*.py"))
    assert len(files) > 5
    for path in files:
        package = ".".join(["steprnn", *path.parent.relative_to(source).parts])
        assert of(FORBIDDEN[name], imports(path, package)) == set(), path


def test_no_module_of_the_runtime_imports_one_that_imports_it() -> None:
    """Not for a type checker either: what imports in a circle cannot be read, or taken out, alone."""
    source = ROOT / "runtime" / "steprnn"
    found = {}
    for path in sorted(source.rglob("*.py")):
        package = ".".join(["steprnn", *path.parent.relative_to(source).parts])
        name = package if path.stem == "__init__" else f"{package}.{path.stem}"
        found[name] = imports(path, package)
    del found["steprnn.runtime"]  # what users import from; a module's parent is named in its own imports
    graph = {name: {n for n in names if n in found and n != name} for name, names in found.items()}
    assert "steprnn.runtime.session" in graph["steprnn.runtime.model"]
    assert graph["steprnn.runtime.session"] & {"steprnn.runtime.model", "steprnn.runtime.foreign"} == set()
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_root_has_an_init_file_of_the_namespace() -> None:
    """One in any of them would hide the other two from an editable install."""
    for name in FORBIDDEN:
        assert not (ROOT / name / "steprnn" / "__init__.py").exists()
        assert (ROOT / name / "steprnn" / name / "py.typed").is_file()
