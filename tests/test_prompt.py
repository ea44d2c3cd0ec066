"""The canonical prompt against the seed reports' examples, and the nano tokenizer that spells it."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from hyperlora import (
    SPECIAL_TOKENS,
    build_history_str,
    build_nano_tokenizer,
    build_prompt,
    format_rho_text,
    normalize_price,
)
from hyperlora.prompt import SPECIAL_TOKENS_V1, build_target, decision_prompt, decision_target, markers, price_axis
from hyperlora.tokens import add_markers, encode, tokenizer_digest

SUCCESS = """<RHO> 0.5300
<SUCCESS> 1
<TURN> 7 / 20
<TURNS_REMAINING> 13
<RESERVATION_NORM> 0.8421
<LAST_OFFER_NORM> 0.4123
<HISTORY_LEN> 3
<HISTORY> EMPTY:EMPTY EMPTY:EMPTY EMPTY:EMPTY EMPTY:EMPTY EMPTY:EMPTY buyer:0.3000 seller:0.4000 buyer:0.4200
<INSTRUCTION> Output exactly one of:
ACCEPT
OFFER <PRICE_NORM>
<OUTPUT>
"""

FAILURE = """<RHO> <RHO_FAIL>
<SUCCESS> 0
<TURN> 20 / 20
<TURNS_REMAINING> 0
<RESERVATION_NORM> 0.7500
<LAST_OFFER_NORM> NA
<HISTORY_LEN> 0
<HISTORY> EMPTY:EMPTY EMPTY:EMPTY
<INSTRUCTION> Output exactly one of:
ACCEPT
OFFER <PRICE_NORM>
<OUTPUT>
"""

FORMAT_3 = """<RHO> 0.5300
<SUCCESS> 1
<RESERVATION_NORM> 0.8421
<INSTRUCTION> Output exactly one of:
ACCEPT
OFFER <PRICE_NORM>
<HISTORY> buyer:0.3000 seller:0.4000 buyer:0.4200
<TURN> 7 / 20
<TURNS_REMAINING> 13
<LAST_OFFER_NORM> 0.4123
<OUTPUT>
"""

FORMAT_1 = """<RHO> 0.53
<TURN> 7 / 20
<TURNS_REMAINING> 13
<RESERVATION_NORM> 0.8421
<LAST_OFFER_NORM> 0.4123
<HISTORY> PAD:0.0000 buyer:0.3000 seller:0.4000 buyer:0.4200
<INSTRUCTION> Output exactly one of:
ACCEPT
OFFER <PRICE_NORM>
<OUTPUT>
"""


def history(k, prompt_format=2):
    return build_history_str(["buyer", "seller", "buyer"], [30.0, 40.0, 42.0], 0.0, 100.0, k, prompt_format)


def test_format_2_is_the_report():
    text, filled = history(8)
    assert filled == 3
    assert build_prompt(0.53, 7, 20, 13, 0.8421, "0.4123", filled, text) == SUCCESS


def test_failure_and_empty_history():
    text, filled = build_history_str([], [], 0.0, 1.0, 2)
    assert build_prompt(-1.0, 20, 20, 0, 0.75, "NA", filled, text) == FAILURE


def test_format_1_is_the_older_report():
    text, filled = history(4, prompt_format=1)
    assert build_prompt(0.53, 7, 20, 13, 0.8421, "0.4123", filled, text, prompt_format=1) == FORMAT_1


def test_only_the_last_k_offers_are_kept():
    assert build_history_str(["buyer", "seller", "buyer"], [1.0, 2.0, 3.0], 0.0, 10.0, 2) == (
        "seller:0.2000 buyer:0.3000",
        2,
    )


def test_decision_prompt_normalises_and_fills():
    text = decision_prompt(0.53, 7, 20, 84.21, ["buyer", "seller", "buyer"], [30.0, 40.0, 42.0], 41.23, 0.0, 100.0)
    assert text == SUCCESS


@pytest.mark.parametrize(("value", "expected"), [(200, 0.0), (1500, 1.0), (850, 0.5), (-5, 0.0), (9999, 1.0)])
def test_normalize_price_clamps(value, expected):
    assert normalize_price(value, 200.0, 1500.0) == expected


def test_degenerate_range_is_zero():
    assert normalize_price(5.0, 5.0, 5.0) == 0.0


def test_targets():
    assert build_target("ACCEPT", None) == "ACCEPT"
    assert build_target("OFFER", 0.41234) == "OFFER 0.4123"
    with pytest.raises(ValueError, match="neither"):
        build_target("OFFER", None)


def test_format_3_says_the_same_in_another_order():
    text, filled = history(8, prompt_format=3)
    assert (text, filled) == ("buyer:0.3000 seller:0.4000 buyer:0.4200", 3)
    assert build_prompt(0.53, 7, 20, 13, 0.8421, "0.4123", filled, text, prompt_format=3) == FORMAT_3
    empty = build_prompt(-1.0, 1, 20, 19, 0.75, "NA", 0, "", prompt_format=3)
    assert "<HISTORY>\n<TURN> 1 / 20" in empty
    said = {2: SUCCESS, 3: FORMAT_3}
    lines = [set(text.replace("<INSTRUCTION>", "\n<INSTRUCTION>").split("\n")) for text in said.values()]
    assert {line for line in lines[0] ^ lines[1] if "<" in line} == {  # the history alone is spelled otherwise
        "<HISTORY_LEN> 3",
        next(line for line in SUCCESS.split("\n") if line.startswith("<HISTORY> ")),
        "<HISTORY> buyer:0.3000 seller:0.4000 buyer:0.4200",
    }


def seen_by(seat, limit, prompt_format=4, roles=("buyer", "seller"), prices=(450.0, 1150.0), last=1150.0):
    return decision_prompt(
        0.53, 3, 20, limit, roles, prices, last, 200.0, 1500.0, 2, prompt_format=prompt_format, seat=seat
    )


def test_format_4_counts_from_the_own_limit():
    said = seen_by("buyer", 850.0).split("\n")
    assert said[4:8] == [
        "<RESERVATION_NORM> buyer:0.5000",
        "<LAST_OFFER_NORM> -0.2308",  # 300 of 1,300 beyond it
        "<HISTORY_LEN> 2",
        "<HISTORY> buyer:0.3077 seller:-0.2308",
    ]
    assert said[:4] + said[8:] == [
        x for i, x in enumerate(seen_by("buyer", 850.0, 2).split("\n")) if i not in range(4, 8)
    ]
    assert "<LAST_OFFER_NORM> 0.7308" in seen_by("buyer", 850.0, 2)
    with pytest.raises(ValueError, match="give the seat"):
        seen_by(None, 850.0)
    with pytest.raises(ValueError, match="give the seat"):
        build_prompt(0.53, 7, 20, 13, 0.8421, "0.4123", 0, "", prompt_format=4)
    assert markers(4) == SPECIAL_TOKENS


def test_in_format_4_the_seats_are_mirror_images():
    """A buyer who sees what a seller sees, mirrored in the middle of the range, reads the same numbers."""
    other = {"buyer": "seller", "seller": "buyer"}
    for prompt_format, same in ((2, False), (4, True)):
        buys = seen_by("buyer", 900.0, prompt_format)
        sells = seen_by("seller", 800.0, prompt_format, ("seller", "buyer"), (1250.0, 550.0), 550.0)
        swapped = "".join(other.get(word, word) for word in re.split(r"(buyer|seller)", sells))
        lines = [[line for line in text.split("\n") if "RESERVATION" not in line] for text in (buys, swapped)]
        assert (lines[0] == lines[1]) == same


def test_a_first_offer_has_no_seat_but_in_format_4():
    """Openings of either seat at the same limit read the same in the report's prompt."""

    def opening(seat, prompt_format):
        return decision_prompt(0.2, 1, 20, 800.0, [], [], None, 200.0, 1500.0, prompt_format=prompt_format, seat=seat)

    same = {k: opening("buyer", k) == opening("seller", k) for k in (1, 2, 3, 4)}
    assert same == {1: True, 2: True, 3: True, 4: False}


@pytest.mark.parametrize(("seat", "sign"), [("buyer", -1.0), ("seller", 1.0)])
def test_answers_of_format_4_stay_within_the_limit(seat, sign):
    axis = price_axis(4, 200.0, 1500.0, 850.0, seat)
    assert decision_target("OFFER", 850.0 + sign * 130.0, axis) == "OFFER 0.1000"
    assert decision_target("OFFER", 850.0 - sign * 130.0, axis) == "OFFER 0.0000", "nothing beyond it can be said"
    assert decision_target("ACCEPT", None, axis) == "ACCEPT"
    assert (axis.text(850.0 - sign * 130.0), axis.text(850.0 - sign * 0.01)) == ("-0.1000", "0.0000")
    assert axis.price(0.1) == 850.0 + sign * 130.0
    many = price_axis(4, *(np.array([value] * 2) for value in (200.0, 1500.0, 850.0)), seat)
    assert many.price(np.array([0.0, 0.1])).tolist() == [850.0, 850.0 + sign * 130.0]
    assert many.row(1) == axis


def test_other_formats_count_from_the_low_end():
    axis = price_axis(2, 200.0, 1500.0, 850.0, "buyer")
    assert decision_target("OFFER", 330.0, axis) == "OFFER 0.1000"
    assert (axis.text(9999.0), axis.text(-5.0), axis.price(0.5)) == ("1.0000", "0.0000", 850.0)
    assert price_axis(2, 5.0, 5.0, 5.0, None).text(5.0) == "0.0000"


@pytest.mark.parametrize("prompt_format", [2, 3])
def test_prompts_of_format_3_begin_as_those_of_earlier_turns(prompt_format):
    roles, prices = ["buyer", "seller"] * 6, [20.0 + i for i in range(12)]

    def at(turn):
        return decision_prompt(
            0.3, turn, 20, 70.0, roles[: turn - 1], prices[: turn - 1], prices[turn - 2], 0.0, 100.0, 8, prompt_format
        )

    def kept(turn):
        pairs = zip(at(turn), at(turn + 2), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)) / len(at(turn))

    shared = [kept(turn) for turn in (3, 5, 7, 9)]
    if prompt_format == 3:
        assert min(shared[:3]) > 0.6
        assert shared[3] < 0.6  # two offers have left the history
    else:
        assert max(shared) < 0.2


def test_markers_of_all_formats():
    assert len(SPECIAL_TOKENS) == 11
    assert len(SPECIAL_TOKENS_V1) == 9
    assert markers(2) == SPECIAL_TOKENS
    assert set(SPECIAL_TOKENS) - set(markers(3)) == {"<HISTORY_LEN>"}
    with pytest.raises(ValueError, match="choose 1, 2, 3 or 4"):
        markers(5)


@pytest.mark.parametrize(
    "text", [SUCCESS, FAILURE, FORMAT_1, "ACCEPT", "OFFER 0.4123", "OFFER 1.0000", "Hello, world! 42\n"]
)
def test_nano_tokenizer_spells_everything_back(text):
    tokenizer = build_nano_tokenizer()
    ids = encode(tokenizer, [text])[0]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_nano_tokenizer_is_digit_level_and_knows_the_markers():
    tokenizer = build_nano_tokenizer()
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, ["OFFER 0.4123"])[0]) == ["OFFER 0.", "4", "1", "2", "3"]
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, ["<RHO_FAIL>"])[0]) == ["<RHO_FAIL>"]
    assert add_markers(tokenizer) == []


def test_prompt_and_target_tokenise_apart_as_together():
    tokenizer = build_nano_tokenizer()
    apart = encode(tokenizer, [SUCCESS])[0] + encode(tokenizer, ["OFFER 0.1234"])[0]
    assert encode(tokenizer, [SUCCESS + "OFFER 0.1234"])[0] == apart


def test_digest_survives_saving(tmp_path):
    from hyperlora.checkpoint import load_tokenizer

    tokenizer = build_nano_tokenizer()
    tokenizer.save_pretrained(str(tmp_path))
    again = load_tokenizer(tmp_path)
    assert tokenizer_digest(again) == tokenizer_digest(tokenizer)
    assert again.decode(encode(again, [SUCCESS])[0]) == SUCCESS


def test_rho_text_is_the_only_rounding():
    assert format_rho_text(0.12345) == "<RHO> 0.1235"
    assert format_rho_text(0.12345, 1) == "<RHO> 0.12"
