"""Where a bundle is: a folder, a zip file, the name of an installed model, or an address of the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError

if TYPE_CHECKING:
    from .archive import Choice
    from .packed import Place

ADDRESS = re.compile(r"([A-Za-z][\w+.-]+):/+")  # a Path of one has one slash; C:/ is none


@contextmanager
def open_bundle(bundle: str | Path, choice: Choice | None = None) -> Iterator[Path]:
    """The folder of a bundle, for the length of a `with` block.

    A folder, and whatever else is no zip file, is given back as it is. A `.zip` file is unpacked into a
    temporary folder that only this user can read, and which is gone after the block; `choice` tells
    which of its files are needed. A name that is no path is looked for among the installed models, and
    `hf://OWNER/NAME` is fetched from the Hugging Face Hub.
    Raises `BundleError` where a zip file is not a sound bundle, or an installed model cannot be found.
    """
    path = Path(bundle)
    if _is_zip(path):
        from ..claims import temporary_folder  # a folder needs neither
        from . import archive

        with temporary_folder() as temporary:
            folder = temporary / path.name  # errors of what reads it name the zip file
            folder.mkdir()
            archive.unpack(path, folder, choice)
            yield folder
    else:
        yield _found(bundle)


def read_bundle(bundle: str | Path, choice: Choice | None = None) -> Place:
    """The files of a bundle, to be read: of a `.zip` in memory; raises as `open_bundle` does."""
    path = Path(bundle)
    if not _is_zip(path):
        return _found(bundle)
    from . import archive

    return archive.read(path, choice)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def _found(bundle: str | Path) -> Path:
    path = Path(bundle)
    if str(bundle).startswith("hf:/"):
        from .hub import fetched

        return fetched(bundle)
    if not str(bundle):
        raise BundleError("the bundle has an empty name; expected a folder, a .zip or an installed model")
    if ADDRESS.match(str(bundle)) and not path.exists():
        address = ADDRESS.sub(r"\1://", str(bundle))
        raise BundleError(f"{address} is an address; download it and give the file, or take hf://OWNER/NAME")
    if path.name == str(bundle) and not path.suffix and not path.exists():
        return _installed(path)
    return path


def _installed(name: Path) -> Path:
    """The folder of an installed model; the name itself, for its reader to refuse, if none is installed."""
    from . import installed

    models = installed.models()
    if not models:
        return name
    if model := models.get(installed.plain(str(name))):
        return model.folder
    raise BundleError(f"{name} is neither a path nor an installed model; installed: {', '.join(models)}")
