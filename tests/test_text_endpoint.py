"""`agents.text.endpoint`: what is asked, what is tried again, what is kept, and what ends a tournament."""

from __future__ import annotations

import email.utils
import json
import socket
import threading

import pytest
from chat_server import answer, completion, serving

from agents.text import Endpoint, EndpointSettings, Question, Reply
from agents.text import wire as wires
from agents.text.cache import AnswerCache, digest
from agents.text.endpoint import FIRST_WAIT, LONGEST_WAIT, backoff
from agents.text.wire import Fault, reply_of, retry_after
from bargain_env.errors import InputError

KEY = "sk-secret-0123456789"
ONE = Question("one", 7, (0.25, 0.75, 0.0))


def endpoint(server, slept=None, clock=None, now=None, **settings):
    """An endpoint on ``server`` that notes its waits in ``slept`` instead of waiting."""
    given = {"timeout": 5.0, **settings}
    told = {name: f for name, f in (("clock", clock), ("now", now)) if f is not None}
    return Endpoint(EndpointSettings(server.url, "fake", **given), (slept if slept is not None else []).append, **told)


def then(*responses):
    """A script: these responses in turn, the last one ever after; callables are asked."""

    def script(body, n):
        chosen = responses[min(n, len(responses) - 1)]
        return chosen(body, n) if callable(chosen) else chosen

    return script


def test_the_request():
    with serving(then(answer("OFFER 5"))) as server:
        assert endpoint(server, temperature=0.3, max_tokens=11).answer([ONE]) == [Reply("OFFER 5")]
        assert endpoint(server, temperature=None).answer([Question("two", 8)]) == [Reply("OFFER 5")]
    first, second = server.requests
    assert first == {
        "model": "fake",
        "messages": [{"role": "user", "content": "one"}],
        "temperature": 0.3,
        "max_tokens": 11,
        "seed": 7,
    }
    assert "temperature" not in second
    assert set(server.paths) == {"/v1/chat/completions"}
    assert server.headers[0]["Content-Type"] == "application/json"
    assert "Authorization" not in server.headers[0], "nobody is sent a key that was not named"


def test_an_address_may_be_that_of_the_completions():
    with serving(then(answer("x"))) as server:
        settings = EndpointSettings(f"{server.url}/chat/completions/", "fake")
        assert Endpoint(settings).answer([ONE]) == [Reply("x")]
    assert server.paths == ["/v1/chat/completions"]


def test_replies_come_in_the_order_of_the_questions_and_each_is_asked_once():
    with serving(lambda body, _: answer(body["messages"][0]["content"] + str(body["seed"]))) as server:
        asked = endpoint(server, concurrency=3)
        questions = [Question(name, seed) for name in "abc" for seed in (1, 2)] + [Question("a", 1)]
        expected = [Reply(t) for t in ("a1", "a2", "b1", "b2", "c1", "c2", "a1")]
        assert asked.answer(questions) == expected
        assert len(server.requests) == 6
        assert asked.answer(questions[::-1]) == expected[::-1]
        assert len(server.requests) == 6
        assert dict(asked.counts) == {"asked": 6, "kept": 8}
        assert asked.answer([]) == []


@pytest.mark.parametrize("concurrency", [1, 4])
def test_several_are_asked_at_a_time(concurrency):
    together = threading.Barrier(concurrency)

    def script(body, _):
        together.wait(timeout=10)  # nobody is answered before all have asked
        return answer("x")

    with serving(script) as server:
        endpoint(server, concurrency=concurrency).answer([Question(str(i)) for i in range(8)])
    assert server.most == concurrency
    assert len(server.requests) == 8


FAULTS = {
    "500": ((500, "oh", {}), "500 Internal Server Error"),
    "503": ((503, "oh", {}), "503 Service Unavailable"),
    "408": ((408, "", {}), "408 Request Timeout"),
    "409": ((409, "", {}), "409 Conflict"),
    "429": ((429, "slow down", {}), "429 Too Many Requests"),
    "garbage": ((200, "<html>hello</html>", {}), "a response that is not JSON"),
    "bytes": ((200, b"\xff\xfe\x00", {}), "a response that is not JSON"),
    "truncated": ((200, completion("OFFER 5")[:40], {"Content-Length": "200"}), "a response that is not JSON"),
    "nested": ((200, "[" * 200_000, {}), "a response that is not JSON"),
    "endless": ((200, " " * (wires.MAX_BODY + 1), {}), "an endless response"),
    "no_choices": ((200, json.dumps({"choices": []}), {}), "a response without an answer"),
    "an_error": ((200, json.dumps({"error": {"message": "busy"}}), {}), "a response without an answer"),
    "a_list": ((200, "[]", {}), "a response without an answer"),
    "strange_choices": ((200, json.dumps({"choices": [3]}), {}), "a response without an answer"),
    "hang_up": (None, "connection lost (RemoteDisconnected)"),
}


@pytest.mark.parametrize(("response", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_passing_faults_are_tried_again(response, reason):
    with serving(then(response, response, answer("OFFER 9"))) as server:
        slept = []
        patient, hasty = endpoint(server, slept), endpoint(server, retries=1)
        assert patient.answer([ONE]) == [Reply("OFFER 9")]
        assert len(server.requests) == 3
        assert len({json.dumps(r, sort_keys=True) for r in server.requests}) == 1, "the same request"
        assert slept == [FIRST_WAIT * 0.75, FIRST_WAIT * 2 * 1.25]
        assert dict(patient.faults) == {reason: 2}
        server.script = then(response)
        assert hasty.answer([ONE]) == [Reply(None)]
        assert dict(hasty.counts) == {"asked": 2, "kept": 0, "failed": 1}
        server.script = then(answer("late"))
        assert hasty.answer([ONE]) == [Reply("late")], "what failed is not kept"


def test_a_slow_answer_is_a_timeout():
    done = threading.Event()

    def slow(body, _):
        done.wait(timeout=10)
        return answer("too late")

    with serving(then(slow, answer("OFFER 2"))) as server:
        asked = endpoint(server, timeout=0.05)
        assert asked.answer([ONE]) == [Reply("OFFER 2")]
        done.set()
    assert dict(asked.faults) == {"timed out": 1}


def test_an_answer_that_drips_is_a_timeout_too():
    ticks = iter([0.0, 5.5, 200.0, 204.5])  # at the start of each attempt, and after the first bytes of its answer
    with serving(then(answer("OFFER 3"))) as server:
        asked = endpoint(server, timeout=5.0, clock=lambda: next(ticks, 204.6))
        assert asked.answer([ONE]) == [Reply("OFFER 3")]
    assert dict(asked.faults) == {"timed out": 1}
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("3", 3.0),
        ("2.5", 2.5),
        ("0", FIRST_WAIT * 0.75),
        ("-4", FIRST_WAIT * 0.75),
        ("soon", FIRST_WAIT * 0.75),
        ("nan", FIRST_WAIT * 0.75),
        (email.utils.formatdate(1_000_010, usegmt=True), 10.0),
        (email.utils.formatdate(999_000, usegmt=True), FIRST_WAIT * 0.75),
    ],
)
def test_retry_after_is_honoured(header, expected):
    with serving(then((429, "", {"Retry-After": header}), answer("x"))) as server:
        slept = []
        assert endpoint(server, slept, now=lambda: 1_000_000.0).answer([ONE]) == [Reply("x")]
    assert slept == [expected]


def test_a_server_that_wants_hours_is_not_asked_again():
    with serving(then((429, "", {"Retry-After": str(LONGEST_WAIT + 1)}))) as server:
        slept = []
        assert endpoint(server, slept).answer([ONE]) == [Reply(None)]
    assert (slept, len(server.requests)) == ([], 1)


def test_what_a_server_may_ask_for():
    asked = [
        retry_after(header, 0.0) for header in (None, "7", "-4", "nan", "inf", "soon", "Thu, 01 Jan 1970 00:00:09 GMT")
    ]
    assert asked == [None, 7.0, 0.0, None, None, None, 9.0]


def test_waits_are_a_pure_function_of_the_question():
    waits = [backoff(attempt, (0.0, 0.5, 1.0 - 1e-9)) for attempt in range(4)]
    assert waits == pytest.approx([FIRST_WAIT / 2, FIRST_WAIT * 2, FIRST_WAIT * 6, FIRST_WAIT * 8])
    assert backoff(30, ()) == LONGEST_WAIT
    with serving(then((500, "", {}))) as server:
        all_slept = []
        for question in (ONE, ONE, Question("one", 7, (0.9, 0.1, 0.5))):
            slept = []
            endpoint(server, slept, retries=3).answer([question])
            all_slept.append(slept)
    first, again, other = all_slept
    assert len(first) == 3
    assert first == again
    assert first != other


REFUSED = {
    "key": (
        401,
        json.dumps({"error": {"message": f"Incorrect key {KEY} given\nmore"}}, indent=2),
        "Incorrect key [key]",
    ),
    "forbidden": (403, "not for you\nsecond line", "not for you; name the environment variable"),
    "path": (404, "", "404 Not Found; check the address"),
    "model": (400, json.dumps({"message": "no model 'fake'"}), "no model 'fake'; check the model and the options"),
    "long": (422, "x" * 5000, "x" * wires.SHOWN + ";"),
    "not_an_object": (400, "[1]", "[1]; check"),
    "control": (400, "bad\x1b[31m\x00 stuff", "bad [31m  stuff;"),
}


@pytest.mark.parametrize(("status", "body", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_are_the_users_to_mend(status, body, message, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with serving(then((status, body, {}))) as server:
        asked = endpoint(server, key_env="MY_KEY", concurrency=2)
        with pytest.raises(InputError) as caught:
            asked.answer([Question(str(i)) for i in range(50)])
        assert len(server.requests) < 50, "the first refusal ends the batch"
    said = str(caught.value)
    assert f"{server.url}/chat/completions answered {status}" in said
    assert message in said
    assert "\n" not in said
    assert KEY not in said
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_refusal_does_not_wait_for_those_who_wait():
    """One question is refused while another would wait for hours of retries: the batch ends at once."""

    def script(body, _):
        return (500, "", {}) if body["messages"][0]["content"] == "slow" else (401, "no", {})

    with serving(script) as server:
        asked = Endpoint(EndpointSettings(server.url, "fake", concurrency=2, retries=20))  # really waits
        with pytest.raises(InputError, match="401"):
            asked.answer([Question("slow"), Question("refused")])


def test_redirects_are_not_followed(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(then(answer("stolen"))) as thief:
        for status in (301, 302, 307, 308):
            with serving(then((status, "", {"Location": thief.url}))) as server:
                with pytest.raises(InputError, match=f"{status}.*redirects are not followed") as caught:
                    endpoint(server, key_env="MY_KEY").answer([ONE])
                assert thief.url in str(caught.value)
    assert thief.requests == []


def test_nobody_there_is_an_error_but_somebody_gone_is_not():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    slept = []
    nobody = Endpoint(EndpointSettings(f"http://127.0.0.1:{port}/v1", "fake", retries=2), slept.append)
    with pytest.raises(InputError, match=r"no connection .*start the server or correct the address"):
        nobody.answer([ONE])
    assert len(slept) == 2, "it may just be starting"
    with serving(then(answer("x"))) as server:
        asked = endpoint(server, retries=1)
        asked.answer([ONE])
    assert asked.answer([Question("gone")]) == [Reply(None)]
    assert asked.answer([ONE]) == [Reply("x")]


def test_what_was_answered_is_read_from_any_shape():
    def body(content, **choice):
        return completion(content, **choice).encode()

    assert reply_of(body("OFFER 5", finish_reason="length")) == Reply("OFFER 5", cut=True)
    assert reply_of(body([{"type": "text", "text": "OFF"}, {"type": "text", "text": "ER 5"}, 3])) == Reply("OFFER 5")
    assert reply_of(body(None, finish_reason="content_filter")) == Reply("")
    with pytest.raises(Fault):
        reply_of(b'{"choices": [{"text": "an old completion"}]}')


@pytest.mark.parametrize("text", ["", "I would rather not say."])
def test_nonsense_is_an_answer_and_is_not_asked_again(text):
    with serving(then(answer(text))) as server:
        asked = endpoint(server)
        assert asked.answer([ONE]) == asked.answer([ONE]) == [Reply(text)]
    assert len(server.requests) == 1


# ── the cache ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answers_are_kept_across_runs(tmp_path):
    folder = tmp_path / "a" / "b"
    with serving(then(answer("OFFER 5", finish_reason="length"))) as server:
        first = endpoint(server, cache=str(folder)).answer([ONE])
        assert endpoint(server, cache=str(folder)).answer([ONE]) == first == [Reply("OFFER 5", cut=True)]
        assert len(server.requests) == 1
        for changes in ({"temperature": 0.5}, {"max_tokens": 3}):
            endpoint(server, cache=str(folder), **changes).answer([ONE])
        endpoint(server, cache=str(folder)).answer([Question("one", 8)])
        assert len(server.requests) == 4, "another question, another answer"
        again = endpoint(server, cache=str(folder))
    assert again.answer([ONE]) == first, "without a server"
    assert dict(again.counts) == {"kept": 1}
    files = sorted(folder.rglob("*.json"))
    assert len(files) == 4
    for file in files:
        kept = json.loads(file.read_text())
        assert file.stem == digest(kept["request"])
        assert file.parent.name == file.stem[:2]


def test_a_killed_run_asks_only_for_the_rest(tmp_path):
    questions = [Question(str(i), i) for i in range(12)]

    def dying(body, n):
        return answer(body["messages"][0]["content"]) if n < 5 else (401, "no more", {})

    with serving(dying) as server:
        with pytest.raises(InputError):
            endpoint(server, cache=str(tmp_path), concurrency=1).answer(questions)
        before = len(server.requests)
        server.script = lambda body, _: answer(body["messages"][0]["content"])
        resumed = endpoint(server, cache=str(tmp_path), concurrency=1)
        assert resumed.answer(questions) == [Reply(str(i)) for i in range(12)]
    assert before == 6
    assert [r["seed"] for r in server.requests[before:]] == list(range(5, 12))
    assert dict(resumed.counts) == {"asked": 7, "kept": 5}


def test_damaged_files_are_asked_for_again(tmp_path):
    request = {"url": "u", "body": {"seed": 1}}
    key = digest(request)
    assert digest({"body": {"seed": 1}, "url": "u"}) == key != digest({"url": "u", "body": {"seed": 2}})
    AnswerCache(tmp_path).put(key, request, Reply("x"))
    (file,) = tmp_path.rglob("*.json")
    whole = file.read_text()
    assert AnswerCache(tmp_path).get(key, request) == Reply("x")
    foreign = json.dumps({**json.loads(whole), "request": {"url": "other"}})
    for damaged in (
        "",
        whole[:-9],
        "[]",
        "[" * 200_000,
        foreign,
        whole.replace('"x"', "null"),
        whole.replace(": 1,", ": 2,", 1),
    ):
        file.write_text(damaged)
        assert AnswerCache(tmp_path).get(key, request) is None, damaged[:80]
        AnswerCache(tmp_path).put(key, request, Reply("x"))
        assert file.read_text() == whole
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [file.name], "nothing temporary is left"


def test_an_interrupt_leaves_no_half_of_an_answer(tmp_path, monkeypatch):
    def interrupted(self, text, **_):
        self.write_bytes(text[:20].encode())
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tmp_path), "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        AnswerCache(tmp_path).put("abc", {}, Reply("x"))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_cache_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep answers"):
        AnswerCache(tmp_path / "file" / "folder")


def test_the_key_is_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(then((500, "", {}), answer("x"))) as server:
        asked = endpoint(server, cache=str(tmp_path), key_env="MY_KEY")
        asked.answer([ONE])
        assert server.headers[1]["Authorization"] == f"Bearer {KEY}"
        assert KEY not in repr(asked.settings)
        assert not any(KEY in str(value) for value in vars(asked).values())
        monkeypatch.setenv("MY_KEY", "another")
        asked.answer([Question("two")])
        assert server.headers[2]["Authorization"] == "Bearer another"
    for file in tmp_path.rglob("*.json"):
        assert KEY not in file.read_text()


# ── settings ──────────────────────────────────────────────────────────────────────────────────────────────────────────

BAD = {
    "scheme": ({"url": "ftp://h/v1"}, "not the address"),
    "host": ({"url": "http://"}, "not the address"),
    "port": ({"url": "http://h:99999/v1"}, "not the address"),
    "space": ({"url": "http://h h/v1"}, "not the address"),
    "query": ({"url": "http://h/v1?x=1"}, "not the address"),
    "password": ({"url": "http://me:pw@h/v1"}, "must not hold a password"),
    "model": ({"model": ""}, "no model is named"),
    "temperature": ({"temperature": -0.1}, "temperature -0.1"),
    "nan": ({"temperature": float("nan")}, "temperature nan"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens 0"),
    "timeout": ({"timeout": 0.0}, "timeout 0.0"),
    "retries": ({"retries": -1}, "retries -1"),
    "concurrency": ({"concurrency": 0}, "concurrency 0"),
    "no_key": ({"key_env": "NO_SUCH_KEY"}, "variable 'NO_SUCH_KEY' is empty"),
    "bad_key": ({"key_env": "BAD_KEY"}, "unprintable"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_settings_that_cannot_be(changes, message, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    monkeypatch.setenv("BAD_KEY", "sk-\x07secret")
    with pytest.raises(InputError, match=message) as caught:
        EndpointSettings(**{"url": "http://h/v1", "model": "m", **changes})
    assert "secret" not in str(caught.value)
    assert ":pw" not in str(caught.value)


def test_a_host_that_nobody_could_look_up():
    with pytest.raises(InputError, match="correct the address"):
        Endpoint(EndpointSettings("http://.example/v1", "m", retries=0)).answer([ONE])
