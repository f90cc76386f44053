"""Columns in, columns out: a batch is a dict of NumPy arrays, as Ray, Spark, datasets and Beam pass it.

Each instance loads its bundle once, when it is made, and again in a process that unpickles it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import SteprnnError, UnknownToken, UsageError
from ..loading import load
from ..sampling.sampler import check_seed
from ..texts import reading, tasks
from ..texts.batches import Task, each
from ..texts.options import Filters, check_names

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")
Columns = Mapping[str, NDArray[Any]]


class Columnar(ABC):
    """A bundle, and the column with the texts: what `Embed`, `Score` and `Generate` have in common."""

    def __init__(
        self, bundle: str | Path, column: str, unknown: str, engine: str, variant: str, threads: int
    ) -> None:
        self.column = column
        self.model = load(bundle, engine=engine, variant=variant, threads=threads)
        self._unknown = unknown
        tasks.vocabulary_of(self.model).encode("", unknown=unknown)  # refuses what cannot be meant

    @abstractmethod
    def results(
        self, texts: Iterable[str | SteprnnError], seeds: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The new columns alone; an error in the place of a text is that row's."""

    def __call__(self, batch: Columns) -> dict[str, NDArray[Any]]:
        """The batch with the new columns.

        A row that cannot be done has the reason in the column `error`, which is None elsewhere. Raises
        `UsageError` where the column of the texts is missing, or a new one is there already.
        """
        return self._with(batch, self.results(_column(batch, self.column)))

    def _with(self, batch: Columns, results: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if taken := batch.keys() & results.keys():
            raise UsageError(f"the batch has a column {min(taken)!r} already; rename it")
        return {**batch, **results}


class Embed(Columnar):
    """Adds `embedding`, float32 `[rows, units]`, NaN where there is an error; as `Model.embed`."""

    def __init__(
        self,
        bundle: str | Path,
        *,
        column: str = "text",
        pool: str = "last",
        normalize: bool = False,
        unknown: str = "error",
        engine: str = "auto",
        variant: str = "auto",
        threads: int = 1,
    ) -> None:
        super().__init__(bundle, column, unknown, engine, variant, threads)
        self._pool, self._normalize = pool, normalize
        self._units = self.model.initial_state[reading.pooled_state(self.model, pool)].size

    def results(
        self, texts: Iterable[str | SteprnnError], seeds: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The new columns alone; an error in the place of a text is that row's."""
        task = tasks.embedding(self.model, self._pool, self._normalize, self._unknown)
        found, error = _done(texts, task)
        vectors = np.full((len(found), self._units), np.nan, np.float32)
        for i, vector in enumerate(found):
            if vector is not None:
                vectors[i] = vector
        return {"embedding": vectors, "error": error}


class Score(Columnar):
    """Adds `log_probability` and `perplexity`, float64, NaN where there is an error; as `Model.score`.

    `scored` is the number of tokens that count.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        column: str = "text",
        unknown: str = "error",
        engine: str = "auto",
        variant: str = "auto",
        threads: int = 1,
    ) -> None:
        super().__init__(bundle, column, unknown, engine, variant, threads)

    def results(
        self, texts: Iterable[str | SteprnnError], seeds: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The new columns alone; an error in the place of a text is that row's."""
        found, error = _done(texts, tasks.scoring(self.model, self._unknown))
        rows = [
            (np.nan, np.nan, 0) if s is None else (s.log_probability, s.perplexity, len(s.characters))
            for s in found
        ]
        logs, perplexities, scored = zip(*rows, strict=True) if rows else ((), (), ())
        return {
            "log_probability": np.array(logs, np.float64),
            "perplexity": np.array(perplexities, np.float64),
            "scored": np.array(scored, np.int64),
            "error": error,
        }


class Generate(Columnar):
    """Adds `generated`, the prompt and what follows it, None where there is an error; as `Model.generate`.

    Each row is drawn with `seed`, so that equal prompts have equal texts, or with its own of the column
    `seeds`. So a row's text does not depend on which batch it came in.
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        column: str = "text",
        length: int = 50,
        seed: int = 0,
        seeds: str | None = None,
        stop: str | Sequence[str] = (),
        unknown: str = "error",
        engine: str = "auto",
        variant: str = "auto",
        threads: int = 1,
        **filters: Unpack[Filters],
    ) -> None:
        own = Generate.__init__.__kwdefaults__ or ()
        check_names("Generate", filters, Filters.__optional_keys__, *own)
        super().__init__(bundle, column, unknown, engine, variant, threads)
        check_seed(seed)
        self._length, self._seed, self._seeds = length, seed, seeds
        self._options: dict[str, Any] = {"stop": stop, "unknown": unknown, **filters}
        self.results([])  # refuses options that cannot be meant

    def __call__(self, batch: Columns) -> dict[str, NDArray[Any]]:
        """The batch with the new columns; as `Embed.__call__`."""
        seeds = None if self._seeds is None else _column(batch, self._seeds).tolist()
        for seed in seeds or ():
            check_seed(seed)
        return self._with(batch, self.results(_column(batch, self.column), seeds))

    def results(
        self, texts: Iterable[str | SteprnnError], seeds: Sequence[int] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The new columns alone; `seeds` has one for each text."""

        def seed_of(place: int) -> int:
            return self._seed if seeds is None else seeds[place]

        task = tasks.generation(self.model, self._length, seed_of, **self._options)
        found, error = _done(texts, task)
        return {"generated": _objects(found), "error": error}


def _column(batch: Columns, name: str) -> NDArray[Any]:
    if name not in batch:
        raise UsageError(f"the batch has no column {name!r}; it has {', '.join(map(repr, batch)) or 'none'}")
    return batch[name]


def _done(texts: Iterable[str | SteprnnError], task: Task[T]) -> tuple[list[T | None], NDArray[np.object_]]:
    """Results, None where there is an error, and the errors in words, None where there is none."""
    found = [*each(texts, task)]
    errors = [_words(one) if isinstance(one, SteprnnError) else None for one in found]
    return [None if isinstance(one, SteprnnError) else one for one in found], _objects(errors)


def _words(error: SteprnnError) -> str:
    return error.problem if isinstance(error, UnknownToken) else str(error)


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array
