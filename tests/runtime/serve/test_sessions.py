"""Sessions: texts that go on from request to request, over `kill -9` too, and are nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steprnn.runtime import Model, Sampling, StateError, UsageError
from steprnn.runtime.bundle.vocabulary import Vocabulary
from steprnn.runtime.sampling.sampler import Sampler
from steprnn.runtime.serve.errors import ApiError
from steprnn.runtime.serve.row import Row, Task
from steprnn.runtime.serve.sessions import HEAD, HISTORY, Head, Position, Sessions
from steprnn.runtime.streams import SQLite

from .server import Server, stopping, until_true

pytest.importorskip("uvicorn")

LONG = 10_000_000


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sqlite"


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the server that most tests share."""
    return tmp_path_factory.mktemp("sessions") / "sessions.sqlite"


@pytest.fixture(scope="module")
def server(tiny: Path, used: Path) -> Iterator[Server]:
    flags = ("--name", "tiny", "--engine", "litert", "--max-tokens", LONG, "--sessions", used)
    with stopping(Server(tiny, *flags)) as server:
        yield server
        assert server.stop() == (0, "")


@pytest.fixture
def reference(models: dict[str, Model]) -> Model:
    return models["litert"]


def post(server: Server, prompt: str = "", length: int = 9, **asked: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of a request; the events of a stream come as one body."""
    body = json.dumps({"prompt": prompt, "max_tokens": length} | asked).encode()
    status, _, data = server.request("POST", "/v1/completions", body)
    if not asked.get("stream") or status != 200:
        return status, json.loads(data)
    chunks = [json.loads(event) for event in re.findall(rb"^data: (\{.*\})$", data, re.MULTILINE)]
    whole = chunks[-1]
    assert len({chunk["session"] for chunk in chunks}) == 1
    whole["choices"][0]["text"] = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    return status, whole


def written(server: Server, *given: Any, **asked: Any) -> tuple[str, str]:
    """The text, and the id of its session."""
    status, answer = post(server, *given, **asked)
    assert status == 200, answer
    return answer["choices"][0]["text"], answer["session"]


DRAWN = {"temperature": 1.5, "repeat_penalty": 1.3, "repeat_last_n": 12}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("options", [{"temperature": 0.0}, DRAWN])
def test_texts_over_requests_are_one_text(
    server: Server, reference: Model, options: dict[str, Any], stream: bool
) -> None:
    """Also over one of no tokens; without another seed the draws go on."""
    expected = reference.generate("分开", 60, seed=7, **options).removeprefix("分开")
    text, name = written(server, "分开", 20, session="new", seed=7, stream=stream, **options)
    for length in (1, 0, 19, 20):
        more, same = written(server, "", length, session=name, stream=stream, **options)
        assert same == name
        text += more
    assert text == expected


def test_a_prompt_follows_what_was_written(server: Server, reference: Model) -> None:
    first, name = written(server, "分开", 10, session="new", temperature=0)
    second, _ = written(server, "雨后山", 10, session=name, temperature=0, echo=True)
    third, _ = written(server, "月", 10, session=name, temperature=1.5, seed=3, repeat_penalty=2)
    before = "分开" + first + "雨后山"
    assert second == "雨后山" + reference.generate(before, 10).removeprefix(before)
    before = "分开" + first + second + "月"
    whole = reference.generate(before, 10, seed=3, temperature=1.5, repeat_penalty=2.0)
    assert third == whole.removeprefix(before)


def test_a_prompt_alone_is_read(server: Server, reference: Model) -> None:
    _, name = written(server, "分", 0, session="new")
    written(server, "开雨后", 0, session=name)
    written(server, "山", 0, session=name)
    assert written(server, "", 12, session=name, temperature=0)[0] == reference.generate("分开雨后山", 12)[5:]
    status, answer = post(server, "", session="new")
    assert (status, answer["error"]["param"]) == (422, "prompt")


def test_it_goes_on_before_a_stop_string(server: Server, reference: Model) -> None:
    text = reference.generate("分开", 40)[2:]
    stop = text[10:13]
    first, name = written(server, "分开", 40, session="new", temperature=0, stop=stop)
    assert 0 < len(first) <= 10
    before = "分开" + first
    assert (
        written(server, "", 20, session=name, temperature=0)[0]
        == reference.generate(before, 20)[len(before) :]
    )
    second, fork = written(server, "月", 40, **{"from": name}, temperature=0, stop=["风", "雨"])
    before += reference.generate(before, 20)[len(before) :] + "月" + second
    more, _ = written(server, "云", 20, session=fork, temperature=0)
    assert more == reference.generate(before + "云", 20)[len(before) + 1 :]


def test_it_outlives_the_process(tiny: Path, store: Path, reference: Model) -> None:
    """Killed while it writes another, and the killed one's session is where it was before."""
    expected = reference.generate("分开", 60, seed=7, temperature=1.5)[2:]
    flags = ("--name", "tiny", "--engine", "litert", "--max-tokens", LONG, "--sessions", store)
    with stopping(Server(tiny, *flags)) as server:
        text, name = written(server, "分开", 30, session="new", seed=7, temperature=1.5)
        with begun(server, session=name, max_tokens=LONG):
            server.process.kill()
            server.process.communicate(timeout=60)
    with stopping(Server(tiny, *flags)) as server:
        more, _ = written(server, "", 15, session=name, temperature=1.5)
        text += more
        assert server.stop() == (0, "")
    with stopping(Server(tiny, *flags, "--threads", 2)) as server:
        text += written(server, "", 15, session=name, temperature=1.5)[0]
        assert json.loads(server.request("GET", f"/v1/sessions/{name}")[2])["tokens"] == 62
    assert text == expected
    assert stat.S_IMODE(store.stat().st_mode) == 0o600


@contextlib.contextmanager
def begun(server: Server, **asked: Any) -> Iterator[http.client.HTTPConnection]:
    """A stream whose first event has come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        body = json.dumps({"prompt": "", "stream": True} | asked)
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        assert response.readline().startswith(b"data: ")
        yield connection


def test_one_request_at_a_time(server: Server, reference: Model) -> None:
    """Others are refused by name; who hangs up leaves the session where it was; a fork may go on."""
    first, name = written(server, "分开", 10, session="new", temperature=0)
    with begun(server, session=name, max_tokens=LONG, temperature=0):
        status, answer = post(server, "", session=name)
        assert (status, answer["error"]["code"]) == (409, "session_busy")
        status, _, data = server.request("DELETE", f"/v1/sessions/{name}")
        assert (status, json.loads(data)["error"]["code"]) == (409, "session_busy")
        forked, fork = written(server, "", 10, **{"from": name}, temperature=0)
        assert fork != name
    until_true(lambda: server.metric("rows_active") == 0)
    expected = reference.generate("分开", 30)[2:]
    answers: list[tuple[int, Any]] = []

    def answered() -> bool:
        answers.append(post(server, "", 10, session=name, temperature=0))
        return answers[-1][0] != 409

    until_true(answered)
    assert first + answers[-1][1]["choices"][0]["text"] == first + forked == expected[:20]
    assert written(server, "", 10, session=fork, temperature=0)[0] == expected[20:]


def test_the_server_makes_the_ids(server: Server) -> None:
    for name in ("mine", "00000000000000000000000000000000"):
        status, answer = post(server, "", session=name)
        assert (status, answer["error"]["code"]) == (404, "session_not_found")
        status, answer = post(server, "", **{"from": name})
        assert (status, answer["error"]["code"]) == (404, "session_not_found")
    names = {written(server, "分", 1, session="new")[1] for _ in range(9)}
    assert len(names) == 9
    assert all(re.fullmatch("[A-Za-z0-9_-]{32}", name) for name in names), "192 bits"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"session": "new", "n": 2}, "n"),
        ({"session": "new", "prompt": ["分", "开"]}, "n"),
        ({"session": "x", "from": "y"}, "from"),
        ({"session": 5}, "session"),
        ({"session": ""}, "session"),
        ({"from": "x" * 65}, "from"),
        ({"session": "new", "echo": True, "logprobs": 1}, "logprobs"),
    ],
)
def test_a_request_that_cannot_be_meant(server: Server, asked: dict[str, Any], param: str) -> None:
    status, answer = post(server, **({"prompt": "分"} | asked))
    assert (status, answer["error"]["param"]) == (422, param)


def test_a_text_that_fails_leaves_no_session(poisoned: Path, store: Path) -> None:
    flags = ("--engine", "litert", "--variant", "float32", "--sessions", store)
    with stopping(Server(poisoned, *flags)) as server:
        status, _ = post(server, [1, 5], 5, session="new")  # type: ignore[arg-type]
        assert status == 500
        assert server.stop() == (0, "")
    with contextlib.closing(SQLite(store)) as kept:
        assert kept.heads(1) == []


def test_without_a_file_there_are_none(tiny: Path) -> None:
    with stopping(Server(tiny)) as server:
        for status, answer in (
            post(server, "分", session="new"),
            (lambda told: (told[0], json.loads(told[2])))(server.request("GET", "/v1/sessions/x")),
        ):
            assert (status, answer["error"]["code"]) == (404, "no_sessions")
            assert "--sessions FILE" in answer["error"]["message"]


def test_a_list_is_for_who_has_the_key(tiny: Path, store: Path, server: Server) -> None:
    status, _, data = server.request("GET", "/v1/sessions")
    assert status == 403
    assert "STEPRNN_API_KEY" in json.loads(data)["error"]["message"]
    with stopping(Server(tiny, "--sessions", store, key="secret")) as other:
        connection = http.client.HTTPConnection("127.0.0.1", other.port, timeout=60)

        def ask(method: str, path: str, key: str = "secret", **asked: Any) -> tuple[int, Any]:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(asked) if asked else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        with contextlib.closing(connection):
            _, answer = ask("POST", "/v1/completions", prompt="分", max_tokens=4, session="new")
            name = answer["session"]
            assert ask("GET", "/v1/sessions", "wrong")[0] == 401
            assert ask("DELETE", f"/v1/sessions/{name}", "wrong")[0] == 401
            status, listed = ask("GET", "/v1/sessions")
            assert [(one["id"], one["tokens"]) for one in listed["data"]] == [(name, 5)]
            assert ask("GET", f"/v1/sessions/{name}") == (200, listed["data"][0])
            assert ask("DELETE", f"/v1/sessions/{name}")[1]["deleted"] is True
            assert ask("GET", f"/v1/sessions/{name}")[0] == 404
            assert ask("GET", "/v1/sessions")[1]["data"] == []


def test_another_process_and_what_is_no_store(
    tiny: Path, server: Server, used: Path, steprnn: Any, reference: Model, tmp_path: Path
) -> None:
    written(server, "分", 1, session="new")
    done = steprnn("serve", tiny, "--port", 0, "--sessions", used)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is open already, here or in another process" in done.stderr
    with reference.streams(store=tmp_path / "streams") as streams:
        streams.step(["a"], [1])
        streams.save()
    with pytest.raises(StateError, match="has other things than sessions"):
        Sessions(tmp_path / "streams", reference)
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(StateError, match="is not a store"):
        Sessions(tmp_path / "text", reference)
    with pytest.raises(UsageError, match="cannot write"):
        Sessions(tmp_path / "nowhere" / "x", reference)


def stands(model: Model) -> Position:
    states = {name: array + np.float32(0.5) for name, array in model.initial_state.items()}
    return Position(states, [3], [1, 2, 3], [*range(625)])


def test_they_are_bounded(models: dict[str, Model], store: Path) -> None:
    """In number, the longest unused first, and in age; those that are in use stay."""
    model = models["litert"]

    async def many() -> None:
        sessions = Sessions(store, model, most=3, age=100.0)
        turns = [await sessions.begin(None) for _ in range(5)]
        for turn in turns:
            await turn.keep(stands(model), 2)
            if turn is not turns[0]:
                turn.release()
        assert [one["id"] for one in sessions.all()] == [turns[i].name for i in (4, 3, 0)]
        turns[0].release()
        turn = await sessions.go_on(turns[3].name)
        assert turn.position is not None
        np.testing.assert_equal(turn.position.states, stands(model).states)
        assert (turn.position.pending, turn.position.history) == ([3], [1, 2, 3])
        await turn.keep(Position(stands(model).states, [3], [*range(9000)], [*range(625)]), 1)
        turn.release()
        sessions.close()
        sessions = Sessions(store, model, most=3, age=100.0)
        assert [one["id"] for one in sessions.all()] == [turns[i].name for i in (3, 4, 0)]
        turn = await sessions.go_on(turns[3].name)
        assert turn.position is not None
        assert turn.position.history == [*range(9000 - HISTORY, 9000)]
        sessions.close()
        sessions = Sessions(store, model, most=3, age=0.0)
        assert sessions.all() == []
        with pytest.raises(ApiError, match="no such session"):
            await sessions.go_on(turns[3].name)
        turn = await sessions.begin(None)
        await turn.keep(stands(model), 2)
        assert len(sessions._store.heads(HEAD.size)) == 1, "old ones are deleted when another is kept"
        sessions.close()

    asyncio.run(many())


def test_another_model_and_damage_are_told(models: dict[str, Model], store: Path) -> None:
    model = models["litert"]

    async def both() -> None:
        sessions = Sessions(store, model)
        turn = await sessions.begin(None)
        await turn.keep(stands(model), 2)
        turn.release()
        other = Head(b"another.", time.time(), time.time(), 1)
        await sessions.put("other", other, stands(model))
        row = bytearray(sessions._store.read([turn.name])[turn.name])
        row[-1] ^= 1
        sessions._store.write([(turn.name, bytes(row))])
        for name, words, status in (("other", "another model", 409), (turn.name, "damaged", 500)):
            with pytest.raises(ApiError, match=words) as refused:
                await sessions.go_on(name)
            assert refused.value.status == status
            with pytest.raises(ApiError, match=words):
                await sessions.begin(name)
        assert not sessions.busy
        sessions.close()

    asyncio.run(both())


def test_many_keep_at_once_with_few_writes(models: dict[str, Model], store: Path) -> None:
    model = models["litert"]

    async def all_of_them() -> int:
        sessions = Sessions(store, model)
        saved, save = [], sessions._store.save

        def counted() -> None:
            saved.append(1)
            save()

        sessions._store.save = counted  # type: ignore[method-assign]
        turns = [await sessions.begin(None) for _ in range(50)]
        await asyncio.gather(*(turn.keep(stands(model), 1) for turn in turns))
        sessions.close()
        again = Sessions(store, model)
        assert len(again.all()) == 50
        again.close()
        return len(saved)

    assert asyncio.run(all_of_them()) < 10


def test_a_character_of_bytes_is_cut_between_requests() -> None:
    """Its bytes come with the request that completes it."""
    vocabulary, bytes_ = Vocabulary.of_bytes(), list("分开".encode())
    logits = np.zeros(256, np.float32)
    pieces = []
    position = Position({}, [], [], [])
    for some in (bytes_[:2], bytes_[2:4], bytes_[4:]):
        task = Task(
            [*position.pending, 65] if not position.history else position.pending,
            len(some),
            keeps=True,
            hidden=len(position.pending),
            history=position.history,
        )
        one = Row(task, vocabulary, Sampler(Sampling(), 0), lambda piece: None)
        for token in some:
            one.write(token, logits)
        pieces.append(one.piece().text)
        assert one.finish == "length"
        one.state = {}
        position = one.end({})
        assert position.pending == some[-1:]
    assert pieces == ["", "分", "开"]
