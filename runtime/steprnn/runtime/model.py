"""A loaded bundle: generate, stream, score, embed, and sessions to step by hand."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle.manifest import Artefact, Manifest
from .bundle.vocabulary import Vocabulary
from .engines import Engine, Runner
from .errors import check_whole
from .pool import Pool
from .sampling.sampler import Sampler, Sampling, check_seed, new_seed
from .session import Session, State
from .texts import tasks, writing
from .texts.batches import in_order
from .texts.hooks import (
    AnyOf,
    Cancel,
    HookedSampler,
    LogitsProcessor,
    check_hooks,
    for_event_loop,
    until_cancelled,
)
from .texts.options import Filters, Options, Unseeded, check_names
from .texts.reading import Score, pooled_state
from .texts.stops import checked_stops, until

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on; what is not run needs neither

    from .streams import Store, Streams


class Model:
    """A loaded step graph with its vocabulary: immutable, and shared by threads.

    Made by `load`. What a method needs beyond the graph (a vocabulary, logits) is told in its error.
    """

    def __init__(
        self,
        manifest: Manifest,
        artefact: Artefact,
        engine: str,
        opened: Engine,
        vocabulary: Vocabulary | None,
        initial_state: Mapping[str, NDArray[np.float32]],
        start: Engine | None = None,
    ) -> None:
        self.manifest = manifest
        self.initial_state = initial_state  # `[size...]` by name, for one row
        self.artefact = artefact
        self.engine = engine
        self.vocabulary = vocabulary
        self._opened = opened
        self._start = start
        self._pickled: tuple[Any, ...] | None = None  # how to load it again, as `load` tells
        step = manifest.step
        row = sum(t.size for t in (*step.inputs, *step.states, *step.states, *step.outputs))
        graph = manifest.size_of(artefact)  # LiteRT packs the weights for each of its interpreters
        self.runners = Pool(opened.runner, lambda batch: graph + 8 * batch * row)

    def __repr__(self) -> str:
        step = self.manifest.step
        inputs, outputs = (", ".join(t.name for t in part) for part in (step.inputs, step.outputs))
        states = f"{len(step.states)} state{'' if len(step.states) == 1 else 's'}"
        graph = f"{self.manifest.model[:8]} {self.engine} {self.artefact.variant}"
        return f"<Model {graph}: {inputs} -> {outputs}, {states}>"

    def _repr_html_(self) -> str:
        from .html import facts  # only a notebook asks

        return facts(self.manifest, self.artefact, self.engine, self.vocabulary)

    def __reduce__(self) -> tuple[Any, ...]:
        """As where it was loaded from, and what it is: another process loads it again."""
        if self._pickled is None:
            raise TypeError(
                "this model was not made by load; pickle the path, and load it in the other process"
            )
        return self._pickled

    def runner(self, batch: int = 1) -> AbstractContextManager[Runner]:
        """Borrow a runner of the engine; its states are whatever the last borrower left."""
        return self.runners.lend(batch)

    def begin(self, static: Mapping[str, NDArray[Any]], batch: int = 1) -> dict[str, NDArray[np.float32]]:
        """The states that a stream begins with, `[batch, size...]` by name.

        They are zero, or what the model was made with, or computed from `static`, `[batch, features...]` by
        name, which the graph `start` of the bundle asks for.
        """
        states = {
            t.name: np.array(np.broadcast_to(self.initial_state[t.name], t.array_shape(batch)))
            for t in self.manifest.step.states
        }
        if self._start is not None:
            runner = self._start.runner(batch)
            for name, array in runner.inputs.items():
                array[...] = static[name]
            runner.run()
            states |= {name: array.copy() for name, array in runner.outputs.items()}
        return states

    def session(
        self,
        state: State | None = None,
        *,
        batch: int = 1,
        static: Mapping[str, ArrayLike] | None = None,
    ) -> Session:
        """A stream of its own, from a state or from its beginning. Cheap: it holds its states alone.

        `static` has the inputs that stay the same over the stream by name, `[batch, features...]`; a model
        that has some needs all of them. Where the states begin from them, the bundle's graph `start` says
        with what.
        """
        return Session(self, state, batch, static)

    def streams(self, most: int = 100_000, store: Store | str | Path | None = None) -> Streams:
        """Streams by key, that step together: `step(keys, x)`.

        In memory are the states of the `most` that were used last; the others are in a `store`: the path
        of a file of SQLite, which is as it was at the last `Streams.save` and goes on from there, or one of
        your own (`streams.Store`), or without one a file that is gone when the process ends.
        """
        from .streams import Streams  # it needs SQLite, which most programs do without

        return Streams(self, most, store)

    @overload  # a str is a Sequence[str] as well: for it the first that fits is meant
    def generate(  # type: ignore[overload-overlap]
        self, prompt: str, length: int = 50, *, n: None = None, **options: Unpack[Options]
    ) -> str: ...
    @overload
    def generate(self, prompt: str, length: int = 50, *, n: int, **options: Unpack[Options]) -> list[str]: ...
    @overload
    def generate(  # type: ignore[overload-overlap]
        self, prompt: Iterator[str], length: int = 50, *, n: int | None = None, **options: Unpack[Options]
    ) -> Iterator[str]: ...
    @overload
    def generate(
        self, prompt: Iterable[str], length: int = 50, *, n: int | None = None, **options: Unpack[Options]
    ) -> list[str]: ...
    def generate(
        self,
        prompt: str | Iterable[str],
        length: int = 50,
        *,
        n: int | None = None,
        **options: Unpack[Options],
    ) -> str | list[str] | Iterator[str]:
        """The prompt and `length` tokens that follow it, fewer where a stop string comes first.

        A token is a character, or a byte of a model of bytes. With `n`, a list of n texts made together in
        batches, and with several prompts, n (or one) of each; text i of the list is what its prompt gives
        alone with `seed + i`. Of an iterator of prompts, an iterator of texts, which reads ahead as that of
        `score` does.

        The options are those of `stream`, which tells what they mean: `seed`, `stop`, `unknown`,
        `temperature`, `top_k`, `top_p`, `min_p`, `repeat_penalty`, `repeat_last_n`, `logits_processor`
        and `cancel`.
        """
        check_names("generate", options, Options.__optional_keys__, "length", "n")
        if n is not None:
            check_whole("n", n, 1)
        if isinstance(prompt, str):
            if n is None:
                at_once = writing.STREAMED if options.get("stop") else writing.AT_ONCE
                return prompt + "".join(self._pieces(prompt, length, at_once, **options))
            return [*self._generate_rows([prompt], n, length, only=True, **options)]
        texts = self._generate_rows(prompt, n or 1, length, **options)
        return texts if isinstance(prompt, Iterator) else [*texts]

    def stream(
        self,
        prompt: str,
        length: int = 50,
        *,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        unknown: str = "error",
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        repeat_last_n: int = 64,
        logits_processor: LogitsProcessor | None = None,
        cancel: Cancel | None = None,
    ) -> Iterator[str]:
        """The characters that follow the prompt, one at a time, without the prompt itself.

        There are `length` of them, or of a model of bytes as many as these are in UTF-8.

        `temperature` 0 is greedy; see `Sampling` for it and the filters. `seed` makes the draw
        repeatable, on every engine. Generation ends before the first of the `stop` strings.
        `unknown="skip"` leaves out characters of the prompt that the vocabulary does not have;
        otherwise they raise `UnknownToken`. Raises `UsageError` where the prompt is empty.

        `logits_processor` is called at every step with the logits, float32 `[vocabulary]`, and the tokens
        so far, the prompt's too, and changes the logits or returns others; see `hooks.LogitsProcessor`.
        `cancel` is a `threading.Event`: once another thread sets it, the text ends within a step.
        """
        return self._pieces(
            prompt,
            length,
            writing.STREAMED,
            seed=seed,
            stop=stop,
            unknown=unknown,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            repeat_last_n=repeat_last_n,
            logits_processor=logits_processor,
            cancel=cancel,
        )

    def _pieces(
        self,
        prompt: str,
        length: int,
        at_once: int,
        *,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        unknown: str = "error",
        logits_processor: LogitsProcessor | None = None,
        cancel: Cancel | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[str]:
        """What `stream` gives; an engine that writes by itself does `at_once` operations in one call."""
        sampling = Sampling(**filters)
        vocabulary = tasks.vocabulary_of(self)
        tokens = tasks.encoded(vocabulary, prompt, unknown)
        stops = checked_stops(stop)
        check_hooks(logits_processor, cancel)
        check_whole("length", length, 0)
        check_seed(seed := new_seed() if seed is None else seed)
        if logits_processor is None and cancel is None:
            written = writing.write(self, tokens, length, sampling, seed, at_once)
        else:  # each token has to come by
            sampler = Sampler(sampling, seed, tokens)
            chooser = HookedSampler(sampler, logits_processor, tokens) if logits_processor else sampler
            read = tokens if cancel is None else until_cancelled(cancel, tokens)
            written = writing.follow(self, read, length, chooser)
        if cancel is not None:
            written = until_cancelled(cancel, written)
        pieces = vocabulary.pieces(written)
        return until(pieces, stops) if stops else pieces

    def astream(self, prompt: str, length: int = 50, **options: Unpack[Options]) -> AsyncIterator[str]:
        """`stream` for an event loop, with the same options, as `generate` lists them; `async for` over it.

        The prompt is read in a worker thread. Then steps are taken in the loop, which has its turn after
        each: a step takes microseconds, and a change of threads longer. Whoever leaves the `async for`,
        or is cancelled in it, ends the stream.
        """
        left, cancel = threading.Event(), options.get("cancel")
        check_hooks(None, cancel)
        options["cancel"] = left if cancel is None else AnyOf(left, cancel)
        return for_event_loop(self.stream(prompt, length, **options), left)

    @overload
    def score(self, text: str, *, unknown: str = "error") -> Score: ...  # type: ignore[overload-overlap]
    @overload
    def score(  # type: ignore[overload-overlap]
        self, text: Iterator[str], *, unknown: str = "error"
    ) -> Iterator[Score]: ...
    @overload
    def score(self, text: Iterable[str], *, unknown: str = "error") -> list[Score]: ...
    def score(
        self, text: str | Iterable[str], *, unknown: str = "error"
    ) -> Score | list[Score] | Iterator[Score]:
        """Log-probability and perplexity of a text of at least two tokens, which are characters, or bytes.

        Of many, which are read in batches, a list in their order; of an iterator, which may be without
        end, an iterator, which reads ahead by at most 1,024 texts and about a million characters.
        `unknown` is that of `stream`: characters that are skipped are not counted.
        """
        task = tasks.scoring(self, unknown)
        if isinstance(text, str):
            return task.alone(text)
        many = in_order(text, task)
        return many if isinstance(text, Iterator) else [*many]

    @overload
    def embed(  # type: ignore[overload-overlap]
        self, text: Iterator[str], *, pool: str = "last", normalize: bool = False, unknown: str = "error"
    ) -> Iterator[NDArray[np.float32]]: ...
    @overload
    def embed(
        self,
        text: str | Iterable[str],
        *,
        pool: str = "last",
        normalize: bool = False,
        unknown: str = "error",
    ) -> NDArray[np.float32]: ...
    def embed(
        self,
        text: str | Iterable[str],
        *,
        pool: str = "last",
        normalize: bool = False,
        unknown: str = "error",
    ) -> NDArray[np.float32] | Iterator[NDArray[np.float32]]:
        """The last recurrent layer's hidden state after a text, float32 `[units]`.

        `pool="mean"` is the mean of those after each of its characters; `normalize` makes the vector's
        Euclidean length 1. `unknown` is that of `stream`. Of many texts, which are read in batches, float32
        `[texts, units]` in their order; of an iterator, an iterator of vectors, which reads ahead as that of
        `score` does.
        """
        task = tasks.embedding(self, pool, normalize, unknown)
        if isinstance(text, str):
            return task.alone(text)
        vectors = in_order(text, task)
        if isinstance(text, Iterator):
            return vectors
        units = self.initial_state[pooled_state(self, pool)].shape
        return np.array([*vectors], np.float32).reshape(-1, *units)

    def _generate_rows(
        self,
        prompts: Iterable[str],
        n: int,
        length: int,
        *,
        only: bool = False,
        seed: int | None = None,
        **options: Unpack[Unseeded],
    ) -> Iterator[str]:
        """One text a row, its prompt first."""
        check_seed(first := new_seed() if seed is None else seed)
        task = tasks.generation(self, length, lambda place: first + place, n, **options)
        return in_order(prompts, task, only)
