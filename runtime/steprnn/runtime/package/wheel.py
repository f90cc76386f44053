"""A wheel that pip installs: the bundle as data of a package, found by its name without being imported."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path

from ..atomic import write_bytes
from ..bundle.installed import FOLDER, GROUP, plain
from ..bundle.manifest import Manifest
from ..bundle.packed import Place
from ..claims import temporary_files
from ..engines import ENGINES
from ..errors import MissingExtra, SteprnnError, UsageError
from .card import card, summary
from .contents import write_contents
from .licence import read_licence

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = {name}
version = {version}
description = {description}
readme = "README.md"
requires-python = ">=3.10"
dependencies = [{dependency}]
{licence}
[project.entry-points.{group}]
{package} = {package}

[tool.hatch.build]
ignore-vcs = true

[tool.hatch.build.targets.wheel]
packages = [{package}]
core-metadata-version = "2.4"
"""


def default_out(bundle: Path) -> Path:
    """Where the wheel goes if nobody says."""
    return Path("dist")


def write(
    bundle: Place,
    out: Path,
    *,
    name: str | None = None,
    version: str | None = None,
    license: str | None = None,
    engine: str | None = None,
) -> Path:
    """Build a wheel into the folder `out`; returns its path.

    `license` is an SPDX expression or the path of a file. `engine` is what the wheel depends on, and it
    holds the graphs of this engine alone; the first that the bundle has a graph for, if nobody says.
    Raises `UsageError` where an argument cannot be meant, `MissingExtra` where the builder is not
    installed, and `BundleError` where the bundle is damaged.
    """
    builder = _builder()
    package, version = _names(name, version)
    text, expression = read_licence(license)
    engine = engine or _engine(bundle)
    with temporary_files() as temporary:  # hatchling leaves its own where it is killed
        project, built = temporary / "project", temporary / "dist"
        folder = project / package / FOLDER
        folder.mkdir(parents=True)
        manifest = write_contents(bundle, folder, [ENGINES[engine]])
        told = expression or (f"In the file {Path(str(license)).name}" if text else None)
        readme = card(folder, manifest, str(name), package, engine, told)
        files = {
            "README.md": readme,
            f"{package}/__init__.py": f'"""{name}: `steprnn.runtime.load("{package}")`."""\n',
            "pyproject.toml": PROJECT.format(
                name=json.dumps(name),
                version=json.dumps(version),
                description=json.dumps(summary(manifest)),
                dependency=json.dumps(f"steprnn[{engine}]>={version_of('steprnn')}"),
                licence=_licence_lines(text, expression),
                group=json.dumps(GROUP),
                package=json.dumps(package),
            ),
        } | ({"LICENSE": text} if text else {})
        for path, content in files.items():
            (project / path).write_text(content, encoding="utf-8")
        wheel = _build(builder, project, built)
        out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / wheel.name, wheel.read_bytes())
    return out / wheel.name


def _builder() -> type:
    try:
        from build import ProjectBuilder
    except ImportError:
        raise MissingExtra("build, which builds wheels,", "package") from None
    if importlib.util.find_spec("hatchling") is None:
        raise MissingExtra("hatchling, which builds wheels,", "package")
    return ProjectBuilder


def _build(builder: type, project: Path, out: Path) -> Path:
    """Build with hatchling as it is installed here: nothing is downloaded."""
    from build import BuildBackendException
    from pyproject_hooks import quiet_subprocess_runner

    try:
        return Path(builder(project, runner=quiet_subprocess_runner).build("wheel", out))
    except BuildBackendException as error:
        output = getattr(error.exception, "output", None) or b""
        said = output.decode(errors="replace").strip().splitlines() or [str(error)]
        raise SteprnnError(f"hatchling could not build the wheel: {said[-1]}") from None


def _names(name: str | None, version: str | None) -> tuple[str, str]:
    """The package's name as it is imported, and the version in its normal form."""
    from packaging.version import InvalidVersion, Version

    if name is None or version is None:
        raise UsageError("a wheel has a name and a version; give --name lyrics-lstm --version 1.0.0")
    package = plain(name)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name) or not package.isidentifier():
        raise UsageError(
            f"--name {name} cannot be imported; expected letters, digits and -, such as lyrics-lstm"
        )
    if keyword.iskeyword(package) or package in {*sys.stdlib_module_names, "steprnn", "numpy"}:
        raise UsageError(f"--name {name} would hide Python's own {package}; choose another")
    try:
        return package, str(Version(version))
    except InvalidVersion:
        raise UsageError(f"--version {version} is not one to Python; expected such as 1.0.0") from None


def _licence_lines(text: str | None, expression: str | None) -> str:
    if text:
        return 'license-files = ["LICENSE"]\n'
    if expression:
        return f"license = {json.dumps(expression)}\n"
    return 'classifiers = ["Private :: Do Not Upload"]\n'  # PyPI refuses it: nobody said that it may be given


def _engine(bundle: Place) -> str:
    manifest = Manifest.read(bundle)
    held = [
        engine for engine, format in ENGINES.items() if any(a.format == format for a in manifest.artefacts)
    ]
    if not held:
        raise UsageError(
            f"{bundle} has no graph for {' or '.join(ENGINES)}; export it again with --formats onnx"
        )
    return held[0]
