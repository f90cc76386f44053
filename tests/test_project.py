"""What stands in more than one place says the same: the version, and what is checked of a change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
VERSION = re.compile(r'^version = "(.+)"$', re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def version() -> str:
    """That of pyproject.toml, which the others follow."""
    found = VERSION.search(read("pyproject.toml"))
    assert found is not None
    return found[1]


def test_the_version_is_that_of_pyproject() -> None:
    yaml = pytest.importorskip("yaml")
    assert str(yaml.safe_load(read("CITATION.cff"))["version"]) == version()
    assert re.findall(r"^## \[([\d.]+)\]", read("CHANGELOG.md"), re.MULTILINE)[0] == version()


def test_documents_take_the_wheel_by_the_name_that_it_got() -> None:
    """Which has the version, and a platform where a compiler was at hand."""
    pages = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "zh").glob("*.md")]
    named = [v for page in pages for v in re.findall(r"dist/steprnn-(\S+?)\.whl", page.read_text("utf-8"))]
    assert len(named) >= 4
    assert set(named) == {"*"}


def test_no_source_tells_the_version() -> None:
    """Programs ask importlib.metadata."""
    for root in ("train", "export", "runtime"):
        for path in (ROOT / root).rglob("*.py"):
            assert f'"{version()}"' not in path.read_text(encoding="utf-8"), path


def jobs(path: Path) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_of_a_workflow_does_one_thing(path: Path) -> None:
    for name, job in jobs(path).items():
        assert job["runs-on"], name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step


def test_other_systems_check_what_ci_does() -> None:
    """The commands of the targets that .ci/run makes, without the folder of the virtual environment."""
    found = jobs(ROOT / ".github" / "workflows" / "ci.yml")
    assert ".ci/run" in [step.get("run") for step in found["linux"]["steps"]]
    elsewhere = " && ".join(step.get("run", "") for step in found["elsewhere"]["steps"]).split(" && ")
    made = re.findall(r"^make (?:--jobs 2 --output-sync=target )?([a-z ]+)$", read(".ci/run"), re.MULTILINE)
    targets = set(" ".join(made).split())
    assert targets == {"lint", "types", "test", "site"}
    for target in targets - {"site"}:  # of one system, it is the same on another
        body = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
        assert body is not None
        for line in body[1].splitlines():
            assert line.strip().removeprefix("$(BIN)/") in elsewhere


def test_only_the_jobs_that_publish_may_write_anything() -> None:
    yaml = pytest.importorskip("yaml")
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}
    asked = {name: job.get("permissions") for path in WORKFLOWS for name, job in jobs(path).items()}
    assert {name: given for name, given in asked.items() if given} == {
        "publish": {"id-token": "write"},
        "site": {"contents": "write"},
    }
