"""Which changes of the code the tests nearest to it notice: `make mutants`, or this with the name of a PART.

mutmut changes one thing at a time (a number, a word, an operator, an argument) and runs the tests that reach
it; a mutant that they pass has survived. It works in a copy, build/mutants/PART, where the three source roots
are one, as mutmut wants them, and where a property is a function that mutmut sees: it leaves what is
decorated alone. Numbers that stand outside functions it leaves alone too; tests state those.

After the tests have changed, --again runs what survived, and names or patterns of mutants run those.
"""

from __future__ import annotations

import argparse
import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "mutants"
MUTMUT = str(Path(sys.executable).with_name("mutmut"))
OPENED = ("property", "contextmanager")  # decorators that can as well be called after the function
SURVIVED = {0, 5, 33}  # the tests passed, or there are none


@dataclass(frozen=True)
class Part:
    """What is mutated, the tests nearest to it, and which mutants are run if nobody says."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    names: tuple[str, ...] = ()  # patterns; all without one
    isolation: str = "fork"


PARTS = {
    "runtime": Part(
        tuple(
            f"runtime/steprnn/runtime/{name}.py"
            for name in ("parity/*", "bundle/*", "sampling/*", "texts/stops")
        ),
        (
            "tests/runtime/parity",
            "tests/runtime/bundle",
            "tests/runtime/sampling/test_recent.py",
            "tests/runtime/sampling/test_sampler.py",
            "tests/runtime/texts/test_stops.py",
        ),
    ),
    # TensorFlow cannot be forked once it has run, and each mutant takes seconds: every tenth is run.
    "step": Part(
        ("export/steprnn/export/step/*.py",),
        (
            "tests/export/step/test_contract.py",
            "tests/export/step/test_derive.py",
            "tests/export/step/test_locality.py",
            "tests/export/step/test_rules.py",
            "tests/export/step/test_refusals.py",
        ),
        names=("*7",),
        isolation="forkserver",
    ),
}


def main() -> int:
    """Mutate one part, and tell what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("names", nargs="*", help="mutants to run")
    parser.add_argument("--again", action="store_true", help="run what survived")
    arguments = parser.parse_args()
    part, folder = PARTS[arguments.part], BUILD / arguments.part
    names = arguments.names or list(part.names)
    if arguments.again:
        names = [name for name, code in results(folder).items() if code in SURVIVED]
        if not names:
            say("nothing has survived, or nothing was run")
            return 0
    elif not arguments.names:
        shutil.rmtree(folder, ignore_errors=True)
    copy(part, folder)
    code = run(folder, "run", "--max-children", "1", *names)
    say(*report(folder))
    return code


def copy(part: Part, folder: Path) -> None:
    """The tree as mutmut wants it: one root `src`, and what the tests read beside it."""
    for root in ("train", "export", "runtime"):
        shutil.copytree(ROOT / root / "steprnn", folder / "src" / "steprnn", dirs_exist_ok=True)
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        shutil.rmtree(folder / "mutants" / name, ignore_errors=True)  # mutmut's own copy of the older ones
    patterns = [pattern.split("/", 1)[1] for pattern in part.sources]
    sources = sorted(path for pattern in patterns for path in (folder / "src").glob(pattern))
    for path in sources:
        path.write_text(opened(path.read_text(encoding="utf-8")), encoding="utf-8")
    configuration = {
        "source_paths": ["src"],
        "only_mutate": [str(path.relative_to(folder)) for path in sources],
        "also_copy": ["docs"],
        "process_isolation": part.isolation,
        "forkserver_warmup": "import",
        "preload_modules_file": "preload.txt",
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"],
        "pytest_add_cli_args_test_selection": part.tests,
        "timeout_multiplier": 2.0,
        "timeout_constant": 5.0,
        "use_git_change_detection": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in configuration.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(
        "\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8"
    )
    (folder / "preload.txt").write_text("tensorflow\nkeras\nonnx\nonnxruntime\n", encoding="utf-8")


def opened(source: str) -> str:
    """The same module with decorators of OPENED called behind their functions."""
    lines = source.splitlines()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        names = [d.id for d in node.decorator_list if isinstance(d, ast.Name)]
        if len(names) == len(node.decorator_list) == 1 and names[0] in OPENED:
            call = f"{' ' * node.col_offset}{node.name} = {names[0]}({node.name})"
            lines.insert(node.end_lineno or 0, call)
            del lines[node.decorator_list[0].lineno - 1]
    return "\n".join(lines) + "\n"


def run(folder: Path, *arguments: str) -> int:
    """mutmut, at the lowest priority."""
    command = ["nice", "-n", "10", MUTMUT, *arguments]
    return subprocess.run(command, cwd=folder, check=False).returncode


def results(folder: Path) -> dict[str, int | None]:
    """Every mutant by name, and with what its tests ended; None if they were not run."""
    found: dict[str, int | None] = {}
    for path in sorted((folder / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def report(folder: Path) -> list[str]:
    """A table of what was run, by module, and the names of what survived."""
    found = {name: code in SURVIVED for name, code in results(folder).items() if code is not None}
    run, survived = Counter(map(module_of, found)), Counter(module_of(n) for n in found if found[n])
    rows = [(module, number, survived[module]) for module, number in run.items()]
    rows.append(("all", run.total(), survived.total()))
    return [
        "",
        *(name for name in found if found[name]),
        "",
        "| module | mutants | killed | survived |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {module} | {number} | {number - left} | {left} |" for module, number, left in rows),
        "",
        f"{1 - survived.total() / run.total():.1%} killed. What one is:",
        f"cd {folder.relative_to(ROOT)} && {MUTMUT} show NAME",
    ]


def module_of(mutant: str) -> str:
    """The module that a mutant is of."""
    return mutant.rpartition(".")[0]


def say(*lines: str) -> None:
    """Tell a person."""
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
