"""`steprnn serve` as its clients meet it: a server of its own process, OpenAI's client, and curl."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steprnn.runtime import Model, SteprnnError, cli, load
from steprnn.runtime.package.ort import engine_files

from .server import STEPRNN, Server, stopping, until_true

openai = pytest.importorskip("openai")
pytest.importorskip("uvicorn")

DRAWN: dict[str, Any] = {"temperature": 1.0}  # what the protocol has where nothing is said


@pytest.fixture(scope="module")
def server(tiny: Path) -> Iterator[Server]:
    server = Server(tiny, "--name", "tiny", "--max-tokens", 10_000_000, "--engine", "litert")
    yield server
    assert server.stop() == (0, "")


@pytest.fixture(scope="module")
def reference(models: dict[str, Model]) -> Model:
    return models["litert"]


# What is written


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({}, DRAWN),
        ({"temperature": 1.5, "top_p": 0.8}, {"temperature": 1.5, "top_p": 0.8}),
        ({"temperature": 9, "extra_body": {"top_k": 3}}, {"temperature": 9.0, "top_k": 3}),
        ({"temperature": 9, "extra_body": {"min_p": 0.01}}, {"temperature": 9.0, "min_p": 0.01}),
        (
            {"extra_body": {"repeat_penalty": 9, "repeat_last_n": 3}},
            {"temperature": 1.0, "repeat_penalty": 9.0, "repeat_last_n": 3},
        ),
        ({"stop": ["月", "夜风"]}, {"temperature": 1.0, "stop": ["月", "夜风"]}),
        ({"stop": "雨后"}, {"temperature": 1.0, "stop": "雨后"}),
    ],
)
def test_the_text_is_that_of_generate(
    server: Server, reference: Model, asked: dict[str, Any], options: dict[str, Any]
) -> None:
    expected = reference.generate("分开", 60, seed=7, **options).removeprefix("分开")
    client = server.client()
    whole = client.completions.create(model="tiny", prompt="分开", max_tokens=60, seed=7, **asked)
    (choice,) = whole.choices
    assert choice.text == expected
    assert choice.finish_reason == ("stop" if len(expected) < 60 else "length")
    assert whole.usage.prompt_tokens == 2
    assert len(expected) <= whole.usage.completion_tokens <= 60
    assert whole.usage.total_tokens == 2 + whole.usage.completion_tokens
    chunks = list(
        client.completions.create(
            model="tiny",
            prompt="分开",
            max_tokens=60,
            seed=7,
            stream=True,
            stream_options={"include_usage": True},
            **asked,
        )
    )
    *chunks, last = chunks
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [
        choice.finish_reason
    ]
    assert last.choices == []
    assert last.usage == whole.usage
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_the_tokens_of_a_prompt_that_was_read_before_are_told(server: Server) -> None:
    client, prompt = server.client(), "月在雨后分开 云" * 3
    cached, texts = [], set()
    for n in (1, 1, 2):
        answer = client.completions.create(model="tiny", prompt=prompt, max_tokens=20, seed=7, n=n)
        details = answer.usage.prompt_tokens_details
        assert answer.usage.prompt_tokens == 24
        cached.append(details["cached_tokens"] if isinstance(details, dict) else details.cached_tokens)
        texts.add(answer.choices[0].text)
    assert cached == [0, 23, 23]
    assert len(texts) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_choice_i_of_several_has_the_seed_plus_i(server: Server, reference: Model, stream: bool) -> None:
    prompts = ["分开", "雨", "山上夜风"]
    answer = server.client().completions.create(
        model="tiny", prompt=prompts, n=2, max_tokens=30, seed=5, echo=True, stream=stream
    )
    texts = [""] * 6
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [
        reference.generate(prompt, 30, seed=5 + i, **DRAWN)
        for i, prompt in enumerate(p for p in prompts for _ in range(2))
    ]


def test_a_prompt_of_tokens(server: Server, reference: Model) -> None:
    assert reference.vocabulary is not None
    tokens = reference.vocabulary.encode("分开")
    client = server.client()
    for prompt in (tokens, [tokens]):
        answer = client.completions.create(model="tiny", prompt=prompt, temperature=0, echo=True)
        assert answer.choices[0].text == reference.generate("分开", 16)


def test_scores_of_a_text_that_is_only_read(server: Server, reference: Model) -> None:
    text = "雨不停风不来"
    answer = server.client().completions.create(
        model="tiny", prompt=text, max_tokens=0, echo=True, logprobs=2
    )
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (text, "length")
    assert answer.usage.completion_tokens == 0
    assert choice.logprobs.tokens == list(text)
    assert choice.logprobs.text_offset == list(range(len(text)))
    first, *rest = choice.logprobs.token_logprobs
    assert first is None
    assert rest == pytest.approx([log for _, log in reference.score(text).characters], abs=1e-5)
    assert choice.logprobs.top_logprobs[0] is None
    for token, log, top in zip(text[1:], rest, choice.logprobs.top_logprobs[1:], strict=True):
        assert top[token] == log
        assert 2 <= len(top) <= 3
        assert log <= max(top.values())


@pytest.mark.parametrize("stream", [False, True])
def test_scores_end_with_the_text(server: Server, reference: Model, stream: bool) -> None:
    options = {"max_tokens": 40, "seed": 7, "stop": ["夜风"], "logprobs": 0, "stream": stream}
    answer = server.client().completions.create(model="tiny", prompt="分开", **options)
    chunks = list(answer) if stream else [answer]
    text = "".join(chunk.choices[0].text for chunk in chunks)
    tokens = [token for chunk in chunks for token in chunk.choices[0].logprobs.tokens]
    logs = [log for chunk in chunks for log in chunk.choices[0].logprobs.token_logprobs]
    assert tokens == list(text)
    scored = dict(enumerate(reference.score("分开" + text).characters[1:]))
    assert logs == pytest.approx([scored[i][1] for i in range(len(text))], abs=1e-5)


def test_nothing_to_do(server: Server) -> None:
    answer = server.client().completions.create(model="tiny", prompt="分", max_tokens=0)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "length")


def test_many_streams_at_once_and_each_has_its_own_text(server: Server, reference: Model) -> None:
    """More than the batch holds, of all lengths and samplings, so that rows join and leave all the time."""
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.3},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.0, "repeat_penalty": 1.5},
        {"temperature": 1.0, "stop": ["月不在"]},
    ]
    prompts = ["分开", "雨", "云不走月不在", "山上夜风分开云 雨不停风不来"]
    asked = [(prompts[i % 4], 20 + 37 * i % 300, kinds[i % 5], i) for i in range(96)]

    async def one(client: Any, prompt: str, length: int, options: dict[str, Any], seed: int) -> str:
        extra = {name: options[name] for name in ("top_k", "repeat_penalty") if name in options}
        plain = {name: value for name, value in options.items() if name not in extra}
        chunks = await client.completions.create(
            model="tiny", prompt=prompt, max_tokens=length, seed=seed, stream=True, extra_body=extra, **plain
        )
        return "".join([chunk.choices[0].text async for chunk in chunks])

    async def everything() -> list[str]:
        url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client, *a) for a in asked))

    texts = asyncio.run(everything())
    for (prompt, length, options, seed), text in zip(asked, texts, strict=True):
        assert prompt + text == reference.generate(prompt, length, seed=seed, **options)


def test_curl(server: Server, reference: Model) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    url = f"http://127.0.0.1:{server.port}/v1/completions"
    body = json.dumps({"prompt": "分开", "max_tokens": 30, "seed": 7, "stream": True})
    command = ["curl", "-sNi", url, "-H", "Content-Type: application/json", "-d", body]
    out = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
    head, _, events = out.replace("\r\n", "\n").partition("\n\n")
    assert "HTTP/1.1 200 OK" in head
    assert "content-type: text/event-stream" in head
    assert "x-seed: 7" in head
    *texts, done = events.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    records = [json.loads(event.removeprefix("data: ")) for event in texts]
    expected = reference.generate("分开", 30, seed=7, **DRAWN)
    assert "分开" + "".join(record["choices"][0]["text"] for record in records) == expected


# Other routes


def test_models(server: Server) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "steprnn"
    with pytest.raises(openai.NotFoundError, match="expected 'tiny'"):
        client.models.retrieve("huge")


def test_health_and_metrics(server: Server) -> None:
    assert server.request("GET", "/health")[::2] == (200, b'{"status":"ok"}')
    before = server.metric("completion_tokens_total")
    server.client().completions.create(model="tiny", prompt="分开", max_tokens=9)
    assert server.metric("completion_tokens_total") == before + 9
    status, headers, text = server.request("GET", "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    line = re.compile(r'(# (HELP|TYPE) steprnn_\w+ .+|steprnn_\w+(\{code="\d+"\})? [0-9.e+-]+)')
    assert all(line.fullmatch(said) for said in text.decode().splitlines())


# Refusals


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        (b"{", 400, None, "the body is not JSON ("),
        (b"[" * 100_000, 400, None, "the body is not JSON ("),
        (b"[]", 400, None, "the body is []; expected a JSON object"),
        ({}, 422, "prompt", "prompt is null; expected a string, or a list of strings"),
        ({"prompt": 7}, 422, "prompt", "prompt is 7; expected a string"),
        ({"prompt": ["分", 7]}, 422, "prompt", 'prompt is ["\\u5206", 7]; expected a string'),
        ({"prompt": ""}, 422, "prompt", "prompt is empty; expected 1 to 4,096"),
        ({"prompt": []}, 422, "prompt", "prompt is "),
        ({"prompt": "分" * 4097}, 422, "prompt", "prompt has 4,097 tokens; expected 1 to 4,096"),
        ({"prompt": [21]}, 422, "prompt", "prompt has tokens outside 0 to 20"),
        ({"prompt": ["分"] * 17}, 422, "prompt", "prompt has 17 texts; expected at most 16"),
        (
            {"prompt": "分爱开!"},
            400,
            "prompt",
            "prompt: '爱' '!' not among the 21 characters of the vocabulary; leave them out",
        ),
        ({"model": "huge"}, 404, "model", "model \"huge\" is not served here; expected 'tiny'"),
        ({"max_tokens": 10_000_001}, 422, "max_tokens", "max_tokens is 10000001; expected a whole number"),
        ({"max_tokens": -1}, 422, "max_tokens", "max_tokens is -1; expected a whole number from 0 to"),
        ({"max_tokens": 1.5}, 422, "max_tokens", "max_tokens is 1.5; expected a whole number"),
        ({"max_tokens": True}, 422, "max_tokens", "max_tokens is true; expected a whole number"),
        ({"temperature": -1}, 422, "temperature", "temperature is -1; expected a number of at least 0"),
        ({"temperature": "hot"}, 422, "temperature", 'temperature is "hot"; expected a number'),
        (b'{"prompt": "x", "temperature": NaN}', 422, "temperature", "temperature is NaN; expected a number"),
        (b'{"temperature": 1e999}', 422, "temperature", "temperature is Infinity; expected a number"),
        ({"top_p": 0}, 422, "top_p", "top_p is 0; expected a number above 0 and at most 1"),
        ({"min_p": 2}, 422, "min_p", "min_p is 2; expected a number of at least 0 and at most 1"),
        ({"top_k": -1}, 422, "top_k", "top_k is -1; expected a whole number from 0"),
        (
            {"repeat_penalty": 0},
            422,
            "repeat_penalty",
            "repeat_penalty is 0; expected a number of at least 0.01",
        ),
        (
            {"repeat_penalty": 1e-320},
            422,
            "repeat_penalty",
            "expected a number of at least 0.01 and at most 100",
        ),
        (
            {"temperature": 1001},
            422,
            "temperature",
            "temperature is 1001; expected a number of at least 0 and",
        ),
        ({"top_k": 2**63}, 422, "top_k", "expected a whole number from 0 to 2147483647"),
        ({"repeat_last_n": -1}, 422, "repeat_last_n", "repeat_last_n is -1; expected a whole number"),
        ({"n": 0}, 422, "n", "n is 0; expected a whole number from 1 to 16"),
        ({"prompt": ["分"] * 9, "n": 2}, 422, "n", "n is 2; expected at most 16 choices of all 9 prompts"),
        ({"seed": -1}, 422, "seed", "seed is -1; expected a whole number from 0"),
        ({"seed": 2**64}, 422, "seed", "seed is 18446744073709551616; expected a whole number from 0"),
        ({"logprobs": 6}, 422, "logprobs", "logprobs is 6; expected a whole number from 0 to 5"),
        ({"logprobs": True}, 422, "logprobs", "logprobs is true; expected a whole number from 0 to 5"),
        ({"stop": ""}, 422, "stop", 'stop is ""; expected up to 4 strings of 1 to 64 characters'),
        ({"stop": list("云不走月不")}, 422, "stop", "expected up to 4 strings of 1 to 64 characters"),
        ({"stop": {"a": 1}}, 422, "stop", 'stop is {"a": 1}; expected up to 4 strings'),
        ({"echo": 1}, 422, "echo", "echo is 1; expected true or false"),
        ({"stream": "yes"}, 422, "stream", 'stream is "yes"; expected true or false'),
        ({"stream_options": []}, 422, "stream_options", "stream_options is []; expected an object"),
        (
            {"stream_options": {"include_usage": 1}},
            422,
            "stream_options.include_usage",
            "stream_options.include_usage is 1; expected true or false",
        ),
        ({"best_of": 3}, 422, "best_of", "best_of is 3; expected none, or n, which is 1"),
        (b'{"prompt": "\\ud800"}', 400, None, "the body has a lone surrogate"),
        (b'{"prompt": "a", "\\udc00": 1}', 400, None, "the body has a lone surrogate"),
        (b'{"prompt": "\xed\xa0\x80"}', 400, None, "the body is not JSON ('utf-8' codec can't decode byte"),
        ('{"prompt": "分"}'.encode("utf-16"), 400, None, "the body is not JSON ('utf-8' codec can't"),
        ({"presence_penalty": 1}, 422, "presence_penalty", "expected 0: it is not supported"),
        ({"logit_bias": {"1": 2}}, 422, "logit_bias", "expected {}: it is not supported"),
        ({"tempature": 1}, 422, "tempature", 'the field "tempature" is unknown; leave it out'),
    ],
)
def test_a_request_that_cannot_be_meant(
    server: Server, body: bytes | dict[str, Any], status: int, param: str | None, words: str
) -> None:
    data = body if isinstance(body, bytes) else json.dumps({"prompt": "分"} | body if body else {}).encode()
    got, headers, answer = server.request("POST", "/v1/completions", data)
    error = json.loads(answer)["error"]
    assert (got, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert words in error["message"]
    assert "\n" not in error["message"]
    assert headers["content-type"] == "application/json"


def test_the_official_client_knows_the_refusals(server: Server) -> None:
    client = server.client()
    with pytest.raises(openai.UnprocessableEntityError) as wrong:
        client.completions.create(model="tiny", prompt="分", max_tokens=-1)
    assert wrong.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError) as unknown:
        client.completions.create(model="tiny", prompt="爱")
    assert unknown.value.code == "unknown_character"


def test_null_means_left_out(server: Server) -> None:
    """As LangChain's client sends what nobody set; and each field of the protocol alone."""
    names = (
        "best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream "
        "stream_options suffix temperature top_p user model top_k min_p repeat_penalty repeat_last_n metadata"
    ).split()
    plain = {"prompt": "分", "temperature": 0}
    status, _, answer = server.request("POST", "/v1/completions", json.dumps(plain).encode())
    expected = json.loads(answer)["choices"]
    assert status == 200
    for asked in ({name: None} for name in names):
        asked |= {} if "temperature" in asked else {"temperature": 0}
        status, _, answer = server.request(
            "POST", "/v1/completions", json.dumps(asked | {"prompt": "分"}).encode()
        )
        assert status == 200, (asked, answer)
        if "temperature" not in asked or asked["temperature"] == 0:
            assert json.loads(answer)["choices"] == expected
    status, _, answer = server.request("POST", "/v1/completions", b'{"prompt": null}')
    assert (status, json.loads(answer)["error"]["param"]) == (422, "prompt")


def test_a_chat_is_refused_in_words(server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        server.client().chat.completions.create(model="tiny", messages=[{"role": "user", "content": "分"}])
    assert "'tiny' is no chat model: it goes on from a prompt; expected POST /v1/completions" in str(
        refused.value
    )


def test_a_body_that_is_too_large_is_refused_told_or_not(server: Server) -> None:
    status, _, answer = server.request("POST", "/v1/completions", b" " * 1_048_577)
    assert (status, json.loads(answer)["error"]["code"]) == (413, "body_too_large")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):  # nobody says how long it will be
        connection.putrequest("POST", "/v1/completions")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(17):
            connection.send(b"10000\r\n" + b" " * 65536 + b"\r\n")
        connection.send(b"0\r\n\r\n")
        assert connection.getresponse().status == 413
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as endless:  # nothing is read of it
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        endless.sendall(f"{head}Content-Length: {10**12}\r\n\r\n".encode())
        assert endless.recv(100).startswith(b"HTTP/1.1 413 ")


def test_other_content_types_methods_and_paths(server: Server) -> None:
    status, _, answer = server.request("POST", "/v1/completions", b"{}", kind="text/plain")
    assert status == 415
    assert "the content type is 'text/plain'; expected 'application/json'" in answer.decode()
    for method, path, expected in (("GET", "/v1/completions", 405), ("GET", "/v1/chat/completions", 404)):
        status, _, answer = server.request(method, path)
        assert status == expected
        assert "expected POST /v1/completions" in json.loads(answer)["error"]["message"]


def test_the_key(tiny: Path) -> None:
    with stopping(Server(tiny, "--api-key", key="秘密")) as server:
        assert "with the key in STEPRNN_API_KEY" in server.told
        assert "秘密" not in server.told
        for key in ("wrong", "", "mm"):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            with contextlib.closing(connection):
                connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
                response = connection.getresponse()
                assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
        status, _, answer = server.request("POST", "/v1/completions", b"{}")
        assert (status, json.loads(answer)["error"]["code"]) == (401, "invalid_api_key")
        assert server.request("GET", "/health")[0] == 200
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as right:
            right.request("GET", "/v1/models", headers={"Authorization": "Bearer 秘密".encode()})
            assert right.getresponse().status == 200


def test_a_text_that_cannot_go_on_fails_alone(poisoned: Path) -> None:
    """Twenty others in the same batch have theirs, and the server is well."""
    model = load(poisoned, engine="litert", variant="float32")
    assert model.vocabulary is not None
    bad = model.vocabulary.tokens[5]
    expected = model.generate("分开", 12, temperature=0.0).removeprefix("分开")

    async def everything(port: int) -> list[Any]:
        url = f"http://127.0.0.1:{port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            ask = client.completions.create
            good = [ask(model="nan", prompt="分开", max_tokens=12, temperature=0) for _ in range(20)]
            whole = ask(model="nan", prompt=["分" + bad, "分"], max_tokens=50, temperature=0)
            streamed = await ask(model="nan", prompt="分" + bad, max_tokens=50, stream=True)
            answers = await asyncio.gather(*good, whole, return_exceptions=True)
            with pytest.raises(openai.APIError, match="the largest logit is nan after 2 steps of model"):
                async for _ in streamed:
                    pass
            return answers

    with stopping(Server(poisoned, "--name", "nan", "--engine", "litert", "--variant", "float32")) as server:
        *good, wrong = asyncio.run(everything(server.port))
        assert [answer.choices[0].text for answer in good] == [expected] * 20
        assert isinstance(wrong, openai.InternalServerError)
        assert "the largest logit is nan after 2 steps of model" in str(wrong)
        assert server.request("GET", "/health")[0] == 200
        assert server.stop() == (0, "")


# Load, and its end


def test_a_full_queue_answers_429(tiny: Path) -> None:
    options: dict[str, Any] = {"model": "tiny", "prompt": "分", "max_tokens": 1_000_000}
    limits = ("--name", "tiny", "--batch", 2, "--queue", 1, "--max-tokens", 1_000_000)
    with stopping(Server(tiny, *limits)) as server:
        client = server.client()
        with client.completions.create(**options, n=2, stream=True) as first:
            next(iter(first))
            assert server.metric("rows_active") == 2
            with pytest.raises(openai.RateLimitError) as full:
                client.completions.create(**options, n=2)
            assert full.value.response.headers["retry-after"] == "1"
            assert full.value.type == "rate_limit_error"
            with client.completions.create(**options, stream=True) as second:
                assert server.metric("rows_waiting") == 1
                with pytest.raises(openai.RateLimitError, match="the queue is full, with 1 texts waiting"):
                    client.completions.create(**options)
                first.close()  # makes room
                next(iter(second))
                until_true(lambda: server.metric("rows_active") == 1)
        assert server.metric('requests_total{code="429"}') == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_costs_nothing_more(server: Server, stream: bool) -> None:
    before = server.metric("rows_cancelled_total")
    body = json.dumps({"prompt": "分开", "max_tokens": 10_000_000, "n": 3, "stream": stream})
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        data = body.encode()
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        until_true(lambda: server.metric("rows_active") == 3)
    until_true(lambda: server.metric("rows_active") == 0)
    assert server.metric("rows_cancelled_total") == before + 3
    steps = server.metric("steps_total")
    assert server.metric("steps_total") == steps


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_flight_and_refuses_the_rest(
    tiny: Path, reference: Model, number: signal.Signals
) -> None:
    length = 40_000
    with stopping(Server(tiny, "--name", "tiny", "--max-tokens", length, "--engine", "litert")) as server:
        stream = server.client().completions.create(
            model="tiny", prompt="分开", max_tokens=length, seed=7, stream=True
        )
        pieces = iter(stream)
        text = next(pieces).choices[0].text
        server.process.send_signal(number)

        def refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", server.port), timeout=60).close()
            except OSError:
                return True
            return False

        until_true(refused)
        text += "".join(chunk.choices[0].text for chunk in pieces)
        assert text == reference.generate("分开", length, seed=7, **DRAWN).removeprefix("分开")
        assert server.process.communicate(timeout=60)[1] == ""
        assert server.process.returncode == 0


@pytest.mark.parametrize("stream", [False, True])
def test_what_takes_longer_than_the_grace_is_told(tiny: Path, stream: bool) -> None:
    endless = {"prompt": "分", "max_tokens": 10**9, "stream": stream}
    with stopping(Server(tiny, "--grace", 0, "--max-tokens", 10**9)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        with contextlib.closing(connection):
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps(endless), headers)
            until_true(lambda: server.metric("rows_active") == 1)
            code, err = server.stop()
            response = connection.getresponse()
            last = response.read().decode().split("data: ")[-1]
            assert response.status == (200 if stream else 503)
            assert json.loads(last)["error"]["message"] == "the server stops; ask again later"
    assert code == 0
    assert "Traceback" not in err


# The command


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--batch", "0"], "--batch is 0; expected at least 1"),
        (["--queue", "-1"], "--queue is -1; expected at least 0"),
        (["--max-tokens", "0"], "--max-tokens is 0; expected at least 1"),
        (["--port", "70000"], "--port is 70000; expected 0 to 65535"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1 port 8000 ("),
        (["--api-key"], "--api-key is given and the variable STEPRNN_API_KEY is not set; set it to the key"),
    ],
)
def test_flags_that_cannot_be_meant(
    tiny: Path, capfd: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    assert cli.main(["serve", str(tiny), *flags]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"steprnn: {words}")


def test_a_port_that_is_taken(tiny: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", str(tiny), "--port", str(server.port)]) == 2
    assert capfd.readouterr().err == (
        f"steprnn: cannot listen on 127.0.0.1 port {server.port} (Address already in use); "
        "choose another --host or --port\n"
    )


def test_the_page(tiny: Path) -> None:
    try:
        engine_files()
    except SteprnnError as error:
        pytest.skip(f"there is no onnxruntime-web to make a page with: {error}")
    with stopping(Server(tiny, "--page")) as server:
        status, headers, body = server.request("GET", "/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"<html" in body
        assert server.request("GET", "/model/manifest.json")[2] == (tiny / "manifest.json").read_bytes()
        assert server.request("GET", "/health")[0] == 200
        assert server.request("GET", "/../../etc/passwd")[0] == 404
        assert server.stop() == (0, "")


def test_an_address_that_others_reach_is_warned_of(tiny: Path) -> None:
    command = [STEPRNN, "serve", str(tiny), "--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        assert "at http://0.0.0.0:" in process.stderr.readline()
        warned = process.stderr.readline()
        process.terminate()
    assert warned == "anybody who reaches 0.0.0.0 may use it; set STEPRNN_API_KEY to ask for a key\n"
