"""The text that is trained on: where it comes from, and how it is prepared."""

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from steprnn.runtime.errors import CorpusError

MOST_TEXT = 2**28  # bytes that a packed corpus may hold: 2 MB of gzip can hold 2 GB
SCHEMES = ("http", "https", "ftp", "file")


@dataclass(frozen=True)
class Corpus:
    """A prepared text and the name of the file it came from."""

    name: str
    text: str
    whole: int = 0  # characters of the file, of which the text may be the first ones

    @property
    def sha256(self) -> str:
        """SHA-256 of the prepared text in UTF-8, so that equal training texts are known to be equal."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    def split(self, holdout: float) -> tuple[str, str]:
        """The text to train on and the held-out text: the last `holdout` share of the characters."""
        kept = len(self.text) - round(len(self.text) * holdout)
        return self.text[:kept], self.text[kept:]


def load(
    source: str | Path | None = None,
    *,
    sha256: str | None = None,
    characters: int = 10_000,
    keep_line_breaks: bool = False,
) -> Corpus:
    """Read and prepare a corpus.

    `source` is a `.txt`, `.zip` (holding one `.txt`) or `.gz` file, or the URL of one; None is the
    embedded lyrics. `sha256` is what the file itself, as it is read or downloaded, must have.
    Raises `CorpusError`.
    """
    path, name = _locate(source, sha256)
    data = _read(path)
    if sha256 is not None:
        got = hashlib.sha256(data).hexdigest()
        if got != sha256.lower():
            raise CorpusError(f"{name} has the sha256 {got}; expected {sha256.lower()}: get the file again")
    text = _decode(_unpack(data, name), name)
    text = prepare(text, characters=0, keep_line_breaks=keep_line_breaks)
    used = text[:characters] if characters else text
    if not used.strip():
        what = f"has nothing but white space in its first {len(used):,} characters" if used else "is empty"
        raise CorpusError(f"{name} {what}; expected text to train on")
    return Corpus(name, used, len(text))


def check_length(characters: int, batch: int, window: int) -> None:
    """Raise `CorpusError` where a text to train on does not fill one window."""
    needed = batch * window + window
    if characters < needed:
        raise CorpusError(
            f"the text to train on has {characters:,} characters; --batch {batch} --window {window} "
            f"needs at least {needed:,}: give a longer text, or lower --batch or --window"
        )


def check_held_out(characters: int) -> None:
    """Raise `CorpusError` where a held-out text has no character to predict."""
    if characters < 2:
        raise CorpusError(
            f"the held-out text has {characters} characters and needs at least 2: raise --holdout"
        )


def prepare(text: str, *, characters: int = 10_000, keep_line_breaks: bool = False) -> str:
    """The book's preparation: every line break becomes a space, then the first `characters` are kept.

    `\\r\\n` is one line break. `characters=0` keeps the whole text.
    Source: `load_data_jay_lyrics` of Dive into Deep Learning, 6.3.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not keep_line_breaks:
        text = text.replace("\n", " ")
    return text[:characters] if characters else text


def embedded() -> Path:
    """The lyrics that come with steprnn: beside this file in a wheel, in `data/` in a checkout."""
    here = Path(__file__).resolve()
    for path in (here.with_name("lyrics.txt"), here.parents[3] / "data" / "lyrics.txt"):
        if path.is_file():
            return path
    raise CorpusError("the embedded lyrics.txt is missing; install steprnn again, or give --corpus FILE")


def is_address(source: object) -> bool:
    """Whether a source is fetched, and no file here."""
    return urlsplit(str(source)).scheme in SCHEMES


def _locate(source: str | Path | None, sha256: str | None) -> tuple[Path, str]:
    if source is None:
        path = embedded()
        return path, path.name
    if is_address(source):
        name = PurePosixPath(unquote(urlsplit(str(source)).path)).name
        return _download(str(source), name or "corpus.txt", sha256)
    path = Path(source)
    return path, path.name


def _download(url: str, name: str, sha256: str | None) -> tuple[Path, str]:
    import keras  # a corpus on disk is read without it

    # Keras caches by file name alone; a folder of the URL's own keeps two corpora of one name apart.
    folder = f"steprnn/{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    try:
        path = keras.utils.get_file(
            name, url, cache_subdir=folder, file_hash=sha256, hash_algorithm="sha256" if sha256 else "auto"
        )
    except Exception as error:  # Keras raises a plain Exception for a failed download
        hash_too = " and --sha256" if sha256 else ""
        raise CorpusError(f"{url} could not be fetched ({error}); check the address{hash_too}") from None
    return Path(path), name


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CorpusError(f"{path} does not exist; expected a .txt, .zip or .gz file, or a URL") from None
    except IsADirectoryError:
        raise CorpusError(f"{path} is a folder; expected a .txt, .zip or .gz file, or a URL") from None


def _unpack(data: bytes, name: str) -> bytes:
    if name.lower().endswith(".gz"):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                return _bounded(file.read(MOST_TEXT + 1), name)
        except (OSError, EOFError, zlib.error) as error:
            raise CorpusError(f"{name} is not a whole gzip file ({error}); get the file again") from None
    if name.lower().endswith(".zip"):
        return _unzip(data, name)
    return data


def _bounded(text: bytes, name: str) -> bytes:
    if len(text) > MOST_TEXT:
        raise CorpusError(
            f"{name} unpacks to more than {MOST_TEXT:,} bytes; if that is meant, unpack it and give the .txt"
        )
    return text


def _unzip(data: bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # macOS adds a hidden twin of every file under __MACOSX.
            texts = [
                entry
                for entry in archive.namelist()
                if entry.lower().endswith(".txt") and not entry.startswith("__MACOSX")
            ]
            if len(texts) != 1:
                found = f"{len(texts)} text files ({', '.join(texts[:5])})" if texts else "no .txt file"
                raise CorpusError(
                    f"{name} holds {found}; expected exactly one: unpack it, give the one to use"
                )
            with archive.open(texts[0]) as file:
                return _bounded(file.read(MOST_TEXT + 1), name)
    # ValueError: where the directory begins before the file does. RuntimeError: encrypted, or unknown.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        raise CorpusError(f"{name} is not a whole zip file ({error}); get the file again") from None


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{name} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}; "
            "convert it, for example: iconv -f GB18030 -t UTF-8"
        ) from None
