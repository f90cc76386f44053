"""A bundle in one zip file that `load` and the commands take directly."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from ..atomic import write_bytes
from ..bundle.archive import MOST_BYTES, unpack
from ..bundle.packed import Place
from ..claims import temporary_folder
from ..engines import ENGINES
from ..errors import UsageError
from ..files import MANIFEST
from .contents import stem, write_contents

DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: equal bundles give equal bytes


def default_out(bundle: Path) -> Path:
    """Where the file goes if nobody says."""
    return Path(f"{stem(bundle)}.zip")


def write(bundle: Place, out: Path) -> Path:
    """Write the bundle to the zip file `out`, which is opened as a stranger's would be before it is there.

    A SavedModel is left out: it is a program for TensorFlow, and no engine of the runtime reads it.
    Raises `BundleError` where the bundle is damaged, and `UsageError` where `out` does not end in .zip, or
    is there and is no packaged bundle, which alone is replaced.
    """
    if out.suffix.lower() != ".zip":
        raise UsageError(f"--out {out} does not end in .zip, by which `load` knows it")
    if out.exists() and not _is_packaged(out):
        raise UsageError(f"{out} exists and holds no bundle; choose another --out, nothing was changed")
    with temporary_folder() as temporary:
        folder, trial = Path(temporary) / "bundle", Path(temporary) / "trial"
        folder.mkdir()
        manifest = write_contents(bundle, folder, ENGINES.values())
        data = _zipped(folder, [MANIFEST, *sorted(manifest.files)])
        if len(data) > MOST_BYTES:
            raise UsageError(f"{bundle} takes {len(data):,} bytes zipped, expected at most {MOST_BYTES:,}")
        file = Path(temporary) / out.name
        file.write_bytes(data)
        trial.mkdir()
        unpack(file, trial)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, data)
    return out


def _is_packaged(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _zipped(folder: Path, names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, DATE)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, (folder / name).read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
