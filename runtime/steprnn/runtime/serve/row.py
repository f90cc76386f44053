"""A row: one text in the making, with its own prompt, sampler, stop strings and scores."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundle.vocabulary import Vocabulary
from ..engines.native.text import NativeSampler
from ..errors import NotFinite
from ..sampling.batch import NO_TOKEN
from ..sampling.sampler import Sampler, not_finite
from ..texts.stops import Until
from .prefixes import SHORTEST
from .sessions import Position


@dataclass(frozen=True)
class ScoredToken:
    """A token with its log-probability before temperature and filters; none for the first of a text."""

    token: str
    offset: int  # where it begins in the text of the choice
    logprob: float | None
    top: dict[str, float] | None  # the likeliest tokens, and this one


@dataclass(frozen=True)
class Piece:
    """What a row has made since the piece before."""

    text: str
    scores: list[ScoredToken]
    finish: str | None  # "stop", "length" or "error" in the last piece
    error: str | None = None  # what went wrong with this row alone, in one line


@dataclass(frozen=True)
class Task:
    """What a row is to do."""

    prompt: Sequence[int]  # tokens; at least one
    length: int  # most tokens to write
    stop: Sequence[str] = ()
    logprobs: int | None = None  # how many of the likeliest to tell beside each token; None: no scores
    echo: bool = False  # the prompt is part of the text
    streamed: bool = True  # whether anybody waits for pieces before the last
    client: str = ""  # who asked
    keeps: bool = False  # whether it ends where another may go on: `Row.end`
    states: Mapping[str, NDArray[np.float32]] | None = None  # `[size...]` by name, before the prompt
    hidden: int = 0  # tokens at the beginning of the prompt that earlier requests had
    history: Sequence[int] = ()  # the latest tokens of those


class Row:
    """Reads its prompt a token a step, then writes. Belongs to the scheduler's thread but for `cancelled`."""

    def __init__(
        self,
        task: Task,
        vocabulary: Vocabulary,
        sampler: Sampler | NativeSampler,  # a row that keeps has one of the first kind
        deliver: Callable[[Piece], None],
    ) -> None:
        self.streamed = task.streamed
        self.sampler = sampler
        self.deliver = deliver  # is called with each piece, on the event loop
        self.token = task.prompt[0]  # the one to be read next
        self.written = 0
        self.finish: str | None = None
        self.error: str | None = None
        self.cancelled = False
        self.turn = 0  # the step of the batch at which it joined
        self.place = 0  # in the batch
        self.is_plain = False  # whether it writes, and nobody has to look at each token
        self.state = task.states  # where it goes on, `[size...]` by name; None: the beginning
        self.next_piece_at = 0.0  # when it may go out, in seconds of time.perf_counter
        self.prompt = task.prompt
        self.client = task.client
        self.leads = False  # whether others wait until it has read the prompt that is theirs too
        self.leader: Row | None = None  # for whom this one waits
        self.last: Mapping[str, NDArray[np.float32]] | None = None  # its state before the last of its prompt
        self.cached = 0  # tokens of the prompt that were not read, as their state was known
        self._task = task
        self._read = 0
        self._names = vocabulary.tokens
        self._joiner = vocabulary.joiner()
        self._scored_joiner = vocabulary.joiner()  # tells where in the text a token stands
        self._until = Until(task.stop) if task.stop else None
        self._unsent: list[str] = []
        self._scores: deque[ScoredToken] = deque()
        self._scored_length = self._sent_length = 0  # characters of tokens scored, and of text sent
        self._scores_prompt = task.echo and task.logprobs is not None
        self.keeps = task.keeps
        self._echoed = 0  # characters of the text that are the prompt
        self._tokens: list[int] = []  # that it wrote, if it keeps them
        self._vocabulary = vocabulary
        if task.keeps:  # the bytes of a character that is not whole yet
            for token in self._before[-4:]:
                self._joiner.push(token)
                self._scored_joiner.push(token)
        if task.echo:
            self._unsent.append(vocabulary.decode(task.prompt[task.hidden :]))
            self._echoed = len(self._unsent[0])
        if self._scores_prompt:
            self._scores.append(ScoredToken(self._names[self.token], 0, None, None))
            self._scored_length = len(self._scored_joiner.push(self.token))
        if not task.length and (len(task.prompt) == 1 or not (self._scores_prompt or task.keeps)):
            self.finish = "length"

    @property
    def has_text(self) -> bool:
        """Whether there is anything to deliver."""
        return bool(self._unsent)

    @property
    def is_new(self) -> bool:
        """Whether it has taken no step."""
        return not self._read

    @property
    def left(self) -> int:
        """How many tokens it may still write."""
        return self._task.length - self.written

    @property
    def skips(self) -> bool:
        """Whether it may begin at the last token of its prompt; nobody asks for the scores of the others."""
        return not (self._read or self._scores_prompt) and self.begins and self._task.length > 0

    def follow(self, leader: Row) -> None:
        """Wait until another row has read the prompt of both, and go on from there."""
        self.leader, leader.leads = leader, True

    @property
    def is_ready(self) -> bool:
        """Whether it may join: who reads the prompt for it has come to the last token, or never will."""
        return self.leader is None or self.leader.last is not None or self.leader.finish is not None

    @property
    def before_last(self) -> bool:
        """Whether its state is that before the last token of its prompt, all others of which it has read."""
        return self._read == len(self.prompt) - 1 > self.cached

    @property
    def begins(self) -> bool:
        """Whether its prompt is the beginning of a text."""
        return self._task.states is None

    @property
    def is_wanted_later(self) -> bool:
        """Whether its state before the last token of its prompt is."""
        return self.leads or self.keeps or len(self.prompt) > SHORTEST

    def begin_at_last(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Go on from a state, `[size...]` by name, before the last token of the prompt."""
        self.state, self.last, self.token = state, state, self.prompt[-1]
        self._read = self.cached = len(self.prompt) - 1

    def read(self, logits: NDArray[np.float32]) -> bool:
        """Its token went in and gave logits `[vocabulary]`; returns whether a token is to be chosen now."""
        self._read += 1
        if self._read >= len(self.prompt):
            return True
        self.token = self.prompt[self._read]
        if self._scores_prompt:
            self._score(logits, self.token)
        if not self._task.length and self._read == len(self.prompt) - 1:
            self.finish = "length"
        return False

    def write(self, token: int, logits: NDArray[np.float32]) -> None:
        """Add the token that was chosen from logits `[vocabulary]`; `NO_TOKEN` raises `NotFinite`."""
        if token == NO_TOKEN:
            raise not_finite(logits.max())
        self.token = token
        self.written += 1
        if self._task.logprobs is not None:
            self._score(logits, token)
        self.is_plain = self._until is None and self._task.logprobs is None
        text = self._added([token])
        if self._until is not None:
            text = self._until.push(text)
            if not self._until.ended and self.finish:
                text += self._until.close()
            if self._until.ended:
                self.finish = "stop"
        if text:
            self._unsent.append(text)

    def take(self, tokens: Sequence[int]) -> None:
        """Add the tokens of as many steps as there are; for a row that is plain."""
        self.token = tokens[-1]
        self._read += len(tokens)
        self.written += len(tokens)
        if text := self._added(tokens):
            self._unsent.append(text)

    def _added(self, tokens: Sequence[int]) -> str:
        """The text of tokens that were written; it ends with the last that may be."""
        text = "".join(map(self._joiner.push, tokens))
        if self.keeps:
            self._tokens += tokens
        if self.written == self._task.length:
            self.finish = "length"
            if not self.keeps:  # else what is not whole comes with the next request
                text += self._joiner.close()
        return text

    def end(self, begin: Mapping[str, NDArray[np.float32]]) -> Position:
        """Where a row that keeps and is done stands; `begin` are the states of a model that begins.

        A row that a stop string ended stands at the end of the text that went out, before that string. Its
        state is further: the tokens since the prompt are to be read again.
        """
        before, tokens = self._before, self._tokens
        if self.finish == "length" and self.state is not None:
            return Position(self.state, [self.token], [*before, *tokens], self._generator)
        joiner, length, count = self._vocabulary.joiner(), self._sent_length - self._echoed, 0
        for token in before[-4:]:
            joiner.push(token)
        while length > 0:
            length -= len(joiner.push(tokens[count]))
            count += 1
        states, pending = (self.last, self.prompt[-1:]) if self.last else (self._task.states, self.prompt)
        written = tokens[:count]
        return Position(states or begin, [*pending, *written], [*before, *written], self._generator)

    @property
    def _before(self) -> list[int]:
        """All tokens of the session before the first that this row writes, as far as they are known."""
        return [*self._task.history, *self.prompt[self._task.hidden :]]

    @property
    def _generator(self) -> Sequence[int]:
        assert isinstance(self.sampler, Sampler)
        numbers: tuple[int, ...] = self.sampler.generator.getstate()[1]
        return numbers

    def fail(self, error: NotFinite, model: str) -> None:
        """It has no next token, and ends here."""
        self.finish, self.error = "error", str(error.at(model, self._read))

    def piece(self) -> Piece:
        """What is new, taken off the row."""
        text = "".join(self._unsent)
        self._unsent.clear()
        self._sent_length += len(text)
        scores = []
        while self._scores and self._scores[0].offset < self._sent_length:
            scores.append(self._scores.popleft())
        return Piece(text, scores, self.finish, self.error)

    def _score(self, logits: NDArray[np.float32], token: int) -> None:
        logs = logits.astype(np.float64)
        if not math.isfinite(top := logs.max()):
            raise not_finite(top)
        logs -= top
        logs -= math.log(np.exp(logs).sum())
        likeliest = np.argsort(-logs, kind="stable")[: self._task.logprobs].tolist()
        top = {self._names[i]: float(logs[i]) for i in dict.fromkeys([*likeliest, token])}
        self._scores.append(ScoredToken(self._names[token], self._scored_length, float(logs[token]), top))
        self._scored_length += len(self._scored_joiner.push(token))
