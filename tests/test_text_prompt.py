"""`agents.text`: what a prompt says, and what it may know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chats import Chat, view_of

from agents.text import (
    TextPolicy,
    build_text_prompt,
    facts_of,
)
from agents.text.prompt import HISTORY, LATE, STYLES
from bargain_env import Moves, Seat, play, sample

ROOT = Path(__file__).resolve().parents[1]


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
