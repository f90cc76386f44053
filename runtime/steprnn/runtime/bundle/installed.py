"""Models that pip installed: packages that hold a bundle, found in the entry-point group `steprnn.models`."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ..errors import BundleError

GROUP = "steprnn.models"
FOLDER = "bundle"  # in the package


@dataclass(frozen=True)
class InstalledModel:
    """An entry point `name = package` of the group, and the distribution that brought it."""

    name: str
    package: str
    version: str

    @property
    def folder(self) -> Path:
        """The bundle's folder, found without importing the package; `BundleError` where there is none."""
        spec = importlib.util.find_spec(self.package) if self.package.isidentifier() else None
        places = (spec and spec.submodule_search_locations) or []
        for place in places:
            if (Path(place) / FOLDER).is_dir():
                return Path(place) / FOLDER
        raise BundleError(
            f"the installed model {self.name} has no folder {self.package}/{FOLDER}; install it again"
        )


def models() -> dict[str, InstalledModel]:
    """The installed models by name, in the order of their names."""
    return {plain(p.name): _model(p) for p in sorted(entry_points(group=GROUP), key=lambda p: p.name)}


def plain(name: str) -> str:
    """A name as its package has it: `Lyrics-LSTM` is `lyrics_lstm`."""
    return re.sub(r"[-_.]+", "_", name).lower()


def _model(point: EntryPoint) -> InstalledModel:
    return InstalledModel(plain(point.name), point.value, point.dist.version if point.dist else "")
