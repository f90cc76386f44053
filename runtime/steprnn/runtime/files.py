"""The files of a checkpoint and of a bundle: their names, the versions of their formats, and their JSON.

docs/bundle-format.md and docs/checkpoint-format.md say what each holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from .bundle.packed import Place
from .errors import SteprnnError

VOCABULARY = "vocabulary.json"  # in both

# Of a bundle.
MANIFEST = "manifest.json"
INITIAL = "initial.npz"
GOLDEN = "golden.npz"
GOLDEN_START = "golden-start.npz"
PARITY = "parity.json"

MOST_JSON = 2**26  # bytes; a manifest has some thousand, a vocabulary or a record of parity a million at most

# Of a checkpoint.
MODEL = "model.keras"
TRAINING = "training.json"
HISTORY = "history.png"
RESUME = "resume.npz"


@dataclass(frozen=True)
class Format:
    """What a JSON file says that it is, in its fields `format` and `version`."""

    name: str
    version: int  # the newest that is read; a file may say an older one
    what: str  # in words

    def head(self) -> dict[str, Any]:
        """The fields that a file of this format begins with."""
        return {"format": self.name, "version": self.version}


BUNDLE_FORMAT = Format("steprnn.bundle", 2, "of a bundle")
VOCABULARY_FORMAT = Format("steprnn.vocabulary", 1, "a vocabulary")
PARITY_FORMAT = Format("steprnn.parity", 1, "a record of parity")
CHECKPOINT_FORMAT = Format("steprnn.checkpoint", 1, "of a checkpoint")


def export_line(source: Path) -> str:
    """The command that makes a bundle, beside it, of a checkpoint or a Keras file; to be pasted."""
    out = str(source)
    for ending in (".checkpoint", ".keras", ".h5"):
        out = out.removesuffix(ending)
    return f"steprnn export {quote(str(source))} --out {quote(f'{out}.bundle')}"


def read_record(path: Place, format: Format, error: type[SteprnnError], fix: str) -> dict[str, Any]:
    """The JSON object in a file, without the fields `format` and `version`, which are as they should be.

    Raises `error` where the file is missing, damaged, something else or of another version; `fix` is what
    to do where it is missing or damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a FIFO would be waited for
            raise error(f"{path} is no file; {fix}")
        if isinstance(path, Path) and path.stat().st_size > MOST_JSON:
            raise error(f"{path} has {path.stat().st_size:,} bytes, expected at most {MOST_JSON:,}; {fix}")
        text = path.read_bytes().decode("utf-8")
        record = json.loads(text, parse_constant=_no_number, object_pairs_hook=_unique)
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"{path} is missing; {fix}") from None
    except (ValueError, RecursionError) as reason:  # UnicodeDecodeError and JSONDecodeError among them
        raise error(f"{path} is not JSON ({reason}); {fix}") from None
    if not isinstance(record, dict) or record.pop("format", None) != format.name:
        raise error(f'{path} is not {format.what}: expected "format": "{format.name}"')
    version = record.pop("version", None)
    known = range(1, format.version + 1)
    if type(version) is not int or version not in known:
        from .origin import upgrade  # as slow as the rest, and only a newer file needs it

        raise error(
            f"{path} has format version {version!r} and this steprnn reads {' and '.join(map(str, known))}; "
            f"{upgrade()}"
        )
    return record


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a name that stands twice, two readers would see different things."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return record


def write_record(path: Path, format: Format, record: Mapping[str, Any], indent: int = 2) -> None:
    """Write the JSON object of a file, at once or not at all."""
    from .atomic import write_text  # readers need none of it

    text = json.dumps({**format.head(), **record}, ensure_ascii=False, indent=indent)
    write_text(path, text + "\n")
