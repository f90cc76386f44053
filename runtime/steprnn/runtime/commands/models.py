"""`steprnn models`: the models that pip installed."""

from __future__ import annotations

import argparse
import sys

from ..bundle.installed import InstalledModel, models
from ..bundle.manifest import Manifest
from ..errors import BundleError
from ..package.card import summary

HELP = "list the installed models"
EXAMPLE = "  steprnn models"
NEEDS: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no flags."""


def run(arguments: argparse.Namespace) -> int:
    """A line for each: name, version, graphs, bytes, and what it is; 1 where one is damaged."""
    installed = list(models().values())
    if not installed:
        sys.stderr.write("no model is installed; make one with: steprnn package BUNDLE --as wheel\n")
    failed = False
    for model in installed:
        try:
            sys.stdout.write("  ".join(_cells(model)) + "\n")
        except BundleError as error:
            sys.stderr.write(f"steprnn: {model.name} {model.version}: {error}\n")
            failed = True
    return 1 if failed else 0


def _cells(model: InstalledModel) -> list[str]:
    manifest = Manifest.read(model.folder)
    manifest.verify(model.folder, list(manifest.files))
    graphs = ", ".join(a.name for a in manifest.artefacts)
    size = sum(record.bytes for record in manifest.files.values())
    return [model.name, model.version, graphs, f"{size:,} bytes", summary(manifest)]
