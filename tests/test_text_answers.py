"""`agents.text`: what is read out of answers, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.text import (
    Answer,
    read_answer,
)

YES = Answer(accept=True)


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
