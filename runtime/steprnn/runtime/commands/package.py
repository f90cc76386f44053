"""`steprnn package`: a bundle in the form that an application takes."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from ..bundle.manifest import VARIANTS
from ..bundle.open import read_bundle
from ..engines import ENGINES
from ..errors import UsageError
from ..package.targets import TARGETS

HELP = "make one file, a wheel, a web page, a package for npm, C sources or a folder for the Hub of a bundle"
EXAMPLE = """  steprnn package lyrics.bundle --as zip
  steprnn package lyrics.bundle --as wheel --name lyrics-lstm --version 1.0.0 --license CC-BY-4.0
  steprnn package lyrics.bundle --as web --out site
  steprnn package lyrics.bundle --as npm --name lyrics-lstm --version 1.0.0 --variant int8-weights
  steprnn package lyrics.bundle --as hub --name me/lyrics-lstm --license cc-by-4.0"""
NEEDS: dict[str, str] = {}
# Each kind is a module in ../package, and takes these flags beside --out.
KINDS: dict[str, tuple[str, ...]] = {
    "zip": (),
    "wheel": ("name", "version", "license", "engine"),
    "web": ("variant", "ort"),
    "npm": ("name", "version", "license", "variant"),
    "c": ("variant", "target"),
    "hub": ("name", "license"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("bundle", help="a bundle: a folder, a .zip or an installed model")
    parser.add_argument("--as", dest="kind", choices=tuple(KINDS), required=True, help="what to make")
    parser.add_argument(
        "--out",
        type=Path,
        help="the file, or the folder of a wheel or page (default: NAME.zip, dist, site, npm, c, hub)",
    )
    wheel = parser.add_argument_group("wheel, npm and hub")
    wheel.add_argument(
        "--name", help="name of the package, such as lyrics-lstm; of the repository, OWNER/NAME"
    )
    wheel.add_argument("--version", help="version of the wheel or for npm, such as 1.0.0")
    wheel.add_argument(
        "--license", metavar="TEXT", help="SPDX expression, or a file (default: none, and PyPI refuses it)"
    )
    wheel.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        help="what the wheel depends on (default: the first it has a graph for)",
    )
    web = parser.add_argument_group("web, npm and c")
    web.add_argument("--variant", choices=VARIANTS, help="which weights (default: float32)")
    web.add_argument(
        "--target",
        choices=tuple(TARGETS),
        help="of c: whose layout the folder has, with an example (default: cmake)",
    )
    web.add_argument(
        "--ort",
        type=Path,
        metavar="FOLDER",
        help="of web: node_modules with onnxruntime-web (default: npm fetches it)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write it; its path to stdout, its size to stderr."""
    flags = [flag for taken in KINDS.values() for flag in taken]
    given = {flag: value for flag in flags if (value := getattr(arguments, flag)) is not None}
    for flag in given:
        if flag not in KINDS[arguments.kind]:
            kinds = " or ".join(kind for kind, taken in KINDS.items() if flag in taken)
            raise UsageError(f"--{flag} only means something with --as {kinds}")
    module = importlib.import_module(f"{__package__.rpartition('.')[0]}.package.{arguments.kind}")
    out = arguments.out or module.default_out(Path(arguments.bundle))
    written: Path = module.write(read_bundle(arguments.bundle), out, **given)
    files = [written] if written.is_file() else [p for p in written.rglob("*") if p.is_file()]
    sys.stdout.write(f"{written}\n")
    sys.stderr.write(f"{sum(p.stat().st_size for p in files):,} bytes\n")
    return 0
