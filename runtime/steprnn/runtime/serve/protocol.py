"""What POST /v1/completions takes: a JSON body to a `CompletionRequest`, or the field that is wrong in it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ..bundle.vocabulary import Vocabulary
from ..errors import UnknownToken
from ..sampling.sampler import PARAMETERS, Parameter, Sampling
from .errors import ApiError
from .sessions import NEW

# Fields of OpenAI that are taken only with a value at which they do nothing.
UNSUPPORTED = {"frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "suffix": ""}
STOPS, STOP_LENGTH = 4, 64  # as many as OpenAI takes; each token is compared with all of them
LOGPROBS = 5  # as many as OpenAI tells
SEEDS = 2**64  # as many as there are
NAME_LENGTH = 64  # of a session, at most


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    body: int = 1 << 20  # bytes
    prompt: int = 4096  # tokens of each prompt
    tokens: int = 4096  # max_tokens
    choices: int = 16  # prompts times n


@dataclass(frozen=True)
class CompletionRequest:
    """A request, checked. Choice i of prompt p has the seed `seed + p * n + i`."""

    prompts: list[list[int]]
    length: int
    sampling: Sampling
    seed: int
    n: int
    stop: list[str]
    logprobs: int | None  # how many of the likeliest tokens to tell beside each; None: no scores
    echo: bool
    stream: bool
    include_usage: bool  # whether a stream ends in a chunk that tells it
    session: str | None = None  # the id of one to go on with, or `NEW`
    source: str | None = None  # the id of one from which a new one begins
    seeded: bool = True  # whether the seed was asked for


def parse(body: bytes, model: str, vocabulary: Vocabulary, limits: Limits) -> CompletionRequest:
    """Read a body; raises `ApiError` 400 where it is no JSON or has unknown characters, 404, or 422."""
    try:
        text = body.decode("utf-8")
        record = json.loads(text)
        if "\\u" in text:  # the only way to half of a pair, which UTF-8 does not have
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ApiError(400, "the body has a lone surrogate (\\ud800 to \\udfff); expected Unicode") from None
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON ({error}); expected an object") from None
    if not isinstance(record, dict):
        raise ApiError(400, f"the body is {_shown(record)}; expected a JSON object")
    fields = _Fields(record)
    if (asked := fields.take("model")) not in (None, model):
        raise ApiError(
            404,
            f"model {_shown(asked)} is not served here; expected {model!r}",
            param="model",
            code="model_not_found",
        )
    parameters = _parameters(limits)
    sampling = Sampling(**{name: fields.within(name, parameter) for name, parameter in parameters.items()})
    session, source = fields.name("session"), fields.name("from")
    if source is not None and session not in (None, NEW):
        raise fields.wrong("from", source, f'no "session" beside it, or "{NEW}"')
    given = fields.take("prompt")
    goes_on = source is not None or session not in (None, NEW)
    prompts = [[]] if goes_on and given in (None, "", []) else _prompts(given, vocabulary, limits)
    n = fields.integer("n", 1, 1, limits.choices)
    if len(prompts) * n > limits.choices:
        raise fields.wrong("n", n, f"at most {limits.choices} choices of all {len(prompts)} prompts together")
    if (best := fields.take("best_of")) not in (None, 1, n):
        raise fields.wrong("best_of", best, f"none, or n, which is {n}")
    options = fields.take("stream_options")
    if not isinstance(options, dict | None):
        raise fields.wrong("stream_options", options, "an object")
    stream = fields.boolean("stream")
    seed = fields.integer("seed", -1, 0, SEEDS - limits.choices)
    usage = _Fields(options or {}, "stream_options.").boolean("include_usage")
    completion = CompletionRequest(
        prompts=prompts,
        length=fields.integer("max_tokens", 16, 0, limits.tokens),
        sampling=sampling,
        seed=random.getrandbits(32) if seed < 0 else seed,
        n=n,
        stop=_stops(fields),
        logprobs=fields.optional_integer("logprobs", 0, LOGPROBS),
        echo=fields.boolean("echo"),
        stream=stream,
        include_usage=usage,
        session=NEW if source is not None else session,
        source=source,
        seeded=seed >= 0,
    )
    if completion.session is not None:
        if len(prompts) * n > 1:
            raise fields.wrong("n", n, "one prompt and one choice, with a session")
        if completion.echo and completion.logprobs is not None:
            raise fields.wrong("logprobs", completion.logprobs, "none, with echo and a session")
    fields.take("user")  # who asks makes no difference
    fields.finish()
    return completion


@cache
def _parameters(limits: Limits) -> dict[str, Parameter]:
    """The parameters of sampling as a request has them."""
    recent = replace(PARAMETERS["repeat_last_n"], most=max(limits.prompt, limits.tokens))
    drawn = replace(PARAMETERS["temperature"], default=1.0)  # as the protocol has it
    return PARAMETERS | {"repeat_last_n": recent, "temperature": drawn}


class _Fields:
    """Takes the fields of an object one by one, so that what is left over is known to be meant for others."""

    def __init__(self, record: Mapping[str, Any], prefix: str = "") -> None:
        self._left = dict(record)
        self._prefix = prefix

    def take(self, name: str) -> Any:
        """The value, or None where it is left out or null."""
        return self._left.pop(name, None)

    def wrong(self, name: str, got: Any, expected: str) -> ApiError:
        """The error to raise for a field."""
        name = self._prefix + name
        return ApiError(
            422, f"{name} is {_shown(got)}; expected {expected}", param=name, code="invalid_value"
        )

    def within(self, name: str, parameter: Parameter) -> Any:
        """A parameter of sampling."""
        default, least, most = parameter.default, parameter.least, parameter.most
        if parameter.is_whole:
            return self.integer(name, int(default), int(least), int(most))
        return self.number(name, default, least, most, above=parameter.above)

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds; both are included."""
        value = self.take(name)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(name, value, f"a whole number from {least} to {most}")
        return value

    def optional_integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number within bounds, or None where it is left out."""
        value = self.integer(name, least - 1, least, most)
        return None if value < least else value

    def number(self, name: str, default: float, least: float, most: float, *, above: bool = False) -> float:
        """A number within bounds; both are included, or the least is not."""
        value = self.take(name)
        if value is None:
            return default
        fits = type(value) in (int, float) and (value > least if above else value >= least) and value <= most
        if not fits:
            raise self.wrong(
                name, value, f"a number {'above' if above else 'of at least'} {least:g} and at most {most:g}"
            )
        return float(value)

    def name(self, name: str) -> str | None:
        """The id of a session, or None where it is left out."""
        value = self.take(name)
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= NAME_LENGTH):
            raise self.wrong(name, value, f'an id that the server made, or "{NEW}" to begin')
        return value

    def boolean(self, name: str) -> bool:
        """True or false; false where it is left out."""
        value = self.take(name)
        if value is not None and type(value) is not bool:
            raise self.wrong(name, value, "true or false")
        return bool(value)

    def finish(self) -> None:
        """Refuse what nobody took and is not null: left alone, it would change nothing and raise nothing."""
        for name, value in self._left.items():
            if value is None:
                continue
            if name in UNSUPPORTED:
                if value != UNSUPPORTED[name]:
                    raise self.wrong(name, value, f"{UNSUPPORTED[name]!r}: it is not supported")
            else:
                raise ApiError(
                    422,
                    f"the field {_shown(name)} is unknown; leave it out",
                    param=name[:64],
                    code="unknown_field",
                )


def _stops(fields: _Fields) -> list[str]:
    value = fields.take("stop")
    stops = [] if value is None else [value] if isinstance(value, str) else value
    fits = isinstance(stops, list) and len(stops) <= STOPS
    if not fits or not all(isinstance(s, str) and 0 < len(s) <= STOP_LENGTH for s in stops):
        raise fields.wrong("stop", value, f"up to {STOPS} strings of 1 to {STOP_LENGTH} characters")
    return list(stops)


def _prompts(value: Any, vocabulary: Vocabulary, limits: Limits) -> list[list[int]]:
    """A string, tokens, or a list of either."""
    several = value if isinstance(value, list) and not all(type(v) is int for v in value) else [value]
    if not all(isinstance(p, str) or (isinstance(p, list) and p) for p in several):
        raise _wrong_prompt(f"prompt is {_shown(value)}; expected a string, or a list of strings")
    if len(several) > limits.choices:
        raise _wrong_prompt(f"prompt has {len(several)} texts; expected at most {limits.choices}")
    return [_tokens(prompt, vocabulary, limits) for prompt in several]


def _tokens(prompt: str | Sequence[Any], vocabulary: Vocabulary, limits: Limits) -> list[int]:
    if not 0 < len(prompt) <= limits.prompt:
        size = f"has {len(prompt):,} tokens" if prompt else "is empty"
        raise _wrong_prompt(f"prompt {size}; expected 1 to {limits.prompt:,}")
    if isinstance(prompt, str):
        try:
            return vocabulary.encode(prompt)
        except UnknownToken as error:
            raise ApiError(
                400, f"prompt: {error.problem}; leave them out", param="prompt", code="unknown_character"
            ) from None
    if not all(type(token) is int and 0 <= token < len(vocabulary) for token in prompt):
        raise _wrong_prompt(f"prompt has tokens outside 0 to {len(vocabulary) - 1}")
    return list(prompt)


def _wrong_prompt(message: str) -> ApiError:
    return ApiError(422, message, param="prompt", code="invalid_value")


def _shown(value: Any) -> str:
    """A value as JSON, cut short."""
    text = json.dumps(value) if not isinstance(value, int) or abs(value) < 1e30 else "a long number"
    return text if len(text) <= 64 else f"{text[:60]}..."
