"""Every error a user can cause, each with the exit code the command line gives it.

SteprnnError                 1
├── UsageError               2   an argument that cannot be meant
│   ├── MissingExtra         2   a package that is not installed, with the pip line
│   └── UnknownToken         2   a prompt with characters outside the vocabulary
├── CorpusError              1   text that cannot be trained on
├── CheckpointError          1   a checkpoint folder that is missing, foreign or damaged
├── BundleError              1   a bundle file that is missing, damaged or too new
├── StateError               1   a state of another model
├── NotFinite                1   a step that gave NaN or infinity
├── ExportError              1   a model that has no step, or a graph that breaks the contract
└── ParityError              1   an artefact that does not say what TensorFlow says

A message is one line: what, got, expected, and the fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral


def brief(words: object, most: int = 300) -> str:
    """What another program said, in one line; where it is long it ends at a word, and in dots."""
    line = " ".join(str(words).split())
    return line if len(line) <= most else f"{line[:most].rpartition(' ')[0] or line[:most]} ..."


class SteprnnError(Exception):
    """What the command line prints as one line, without a traceback."""

    exit_code = 1


class UsageError(SteprnnError):
    """An argument that cannot be meant."""

    exit_code = 2


class MissingExtra(UsageError):  # noqa: N818 (it reads as what it says)
    """A package is not installed; the message holds the `pip install` line."""

    def __init__(self, what: str, extra: str) -> None:
        from .origin import install  # it reads what pip recorded, which takes longer than an import

        super().__init__(f"{what} is not installed; run: {install(extra)}")


class UnknownToken(UsageError):  # noqa: N818
    """A text holds characters that are not in the vocabulary."""

    def __init__(self, characters: Sequence[str], size: int, where: str = "") -> None:
        super().__init__(characters, size, where)
        self.characters = tuple(characters)  # each once, in the order of the text
        self.size = size  # of the vocabulary
        self.where = where  # which of several texts

    def at(self, where: str) -> UnknownToken:
        """The same, where it is known which of several texts holds them."""
        return UnknownToken(self.characters, self.size, where)

    @property
    def problem(self) -> str:
        """The message without what to do, which depends on who asked."""
        more = " ..." if len(self.characters) > 10 else ""
        named = " ".join(map(repr, self.characters[:10]))
        where = f"{self.where}: " if self.where else ""
        return f"{where}{named}{more} not among the {self.size} characters of the vocabulary"

    def __str__(self) -> str:
        """The message, in Python's words; a command says `--unknown skip`."""
        return f"{self.problem}; choose others, or skip them with unknown='skip'"


class CorpusError(SteprnnError):
    """A text that cannot be trained on."""


class CheckpointError(SteprnnError):
    """A checkpoint folder that is missing, foreign or damaged."""


class BundleError(SteprnnError):
    """A file of a bundle is missing, truncated, altered or of a newer format version."""


class StateError(SteprnnError):
    """A state that belongs to another model, or has another shape."""


class NotFinite(SteprnnError):  # noqa: N818
    """A step gave NaN or infinity; the message tells what, after how many steps, and of which model."""

    def __init__(self, what: str, model: str = "", steps: int | None = None) -> None:
        super().__init__(what, model, steps)
        self.what = what
        self.model = model
        self.steps = steps  # of its stream, that one among them

    def at(self, model: str, steps: int) -> NotFinite:
        """The same, where the model and the step are known."""
        return NotFinite(self.what, model, steps)

    def __str__(self) -> str:
        """The message."""
        after = "" if self.steps is None else f" after {self.steps} steps"
        model = f" of model {self.model[:12]}" if self.model else ""
        return f"{self.what}{after}{model}; expected finite numbers: look at its weights and at what went in"


class OutOfRange(SteprnnError):  # noqa: N818
    """What integers of 16 bits cannot hold: an input, a state or an output of an int16x8 graph."""

    def __init__(self, what: str, name: str, limit: float) -> None:
        super().__init__(what, name, limit)
        self.what = what  # "input", "state" or "output"
        self.name = name
        self.limit = limit  # the largest that it may be, above and below zero

    def __str__(self) -> str:
        """The message."""
        return (
            f"{self.what} {self.name!r} is beyond the {self.limit:.4g} that its 16 bits hold; export again "
            "with a --text or --inputs that reaches as far, or take another variant"
        )


class ExportError(SteprnnError):
    """A model that has no step, or a graph that breaks the step contract."""


class ParityError(SteprnnError):
    """An artefact that does not say what TensorFlow says."""


def wrong_type(what: str, value: object, expected: str) -> UsageError:
    """What to raise where an argument is of a type that cannot be meant."""
    return UsageError(f"{what} is of type {type(value).__name__}; expected {expected}")


def check_whole(name: str, value: object, least: int) -> None:
    """Raise `UsageError` where an argument is no whole number, of Python or NumPy, or one below the least."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} is {value!r}; expected a whole number, at least {least}")
    if value < least:
        raise UsageError(f"{name} is {value}; expected at least {least}")
