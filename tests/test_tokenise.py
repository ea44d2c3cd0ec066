"""Prompts spelled in pieces have the ids of whole prompts, and where pieces cannot tell, whole prompts are used."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bargain_env.errors import InputError
from hyperlora import build_nano_tokenizer, tokenise
from hyperlora.slots import Unspellable, codes
from hyperlora.spelling import rounded
from hyperlora.token_cache import tokenised
from hyperlora.tokenise import Spelling, in_pieces, whole

NANO = build_nano_tokenizer()
LISTS = {"history_roles": pa.list_(pa.string()), "history_prices": pa.list_(pa.float64())}


def labels(table):
    return table["rho_train"].to_numpy().astype(np.float32)


def joined(chunks):
    return [np.concatenate(column) for column in zip(*chunks, strict=True)]


def same(one, other):
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("prompt_format", [1, 2, 3, 4])
@pytest.mark.parametrize(("k", "max_length"), [(8, 1024), (3, 60), (1, 1024)])
def test_pieces_are_the_whole(steps, prompt_format, k, max_length, monkeypatch):
    monkeypatch.setattr(tokenise, "CHUNK", 150)
    table = steps.slice(0, 500)
    how = Spelling(NANO, k, max_length, prompt_format)
    pieces, book = (joined(way(table, labels(table), how)) for way in (in_pieces, whole))
    assert same(pieces, book)
    assert pieces[0].dtype == np.uint8
    assert (pieces[2] <= max_length).all()


PRICES = st.floats(-50.0, 2000.0) | st.sampled_from([0.0, 200.0, 200.00005, 850.0, 1499.99995, 1500.0])


@st.composite
def rows(draw):
    low, width = draw(st.sampled_from([0.0, 200.0, -300.0])), draw(st.sampled_from([1.1e-6, 1.0, 1300.0]))
    offers = draw(st.lists(st.tuples(st.sampled_from(["buyer", "seller"]), PRICES), max_size=10))
    return {
        "rho_train": draw(st.sampled_from([-1.0, -0.4, 0.0, 1.0, 1.2, 0.03125]) | st.floats(0.0, 1.0)),
        "turn": draw(st.integers(1, 12)),
        "max_turns": draw(st.integers(1, 30)),
        "price_low": low,
        "price_high": low + width,
        "reservation_price": draw(PRICES),
        "last_offer_price": draw(st.none() | PRICES),
        "history_roles": [role for role, _ in offers],
        "history_prices": [price for _, price in offers],
        "target_action": "ACCEPT" if (price := draw(st.none() | PRICES)) is None else "OFFER",
        "target_price": price,
        "role": draw(st.sampled_from(["buyer", "seller"])),
    }


def table_of(made):
    columns = {name: pa.array([row[name] for row in made], LISTS.get(name)) for name in made[0]}
    columns |= {name: columns[name].cast(pa.float64()) for name in ("last_offer_price", "target_price")}
    return pa.table(columns)


@settings(max_examples=40, deadline=None)
@given(st.lists(rows(), min_size=1, max_size=6), st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 2, 8]))
def test_any_rows_are_spelled_alike(made, prompt_format, k):
    table = table_of(made)
    how = Spelling(NANO, k, 1024, prompt_format)
    assert same(joined(in_pieces(table, labels(table), how)), joined(whole(table, labels(table), how)))


@given(st.floats(-1.0, 1.0) | st.integers(-20_000, 20_000).map(lambda n: n / 20_000), st.sampled_from([100, 10_000]))
def test_rounding_is_that_of_texts(value, scale):
    digits = len(str(scale)) - 1
    for beside in (value, np.nextafter(value, 0.0)):
        assert rounded(np.array([beside]), scale)[0] == round(float(f"{beside:.{digits}f}") * scale)


def replaced(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.chunked_array([values]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last_offer_price", float("nan")),
        ("reservation_price", float("inf")),
        ("price_low", None),
        ("history_prices", [None]),
        ("history_roles", ["referee"]),
        ("history_roles", ["buyer", "seller"]),
        ("target_action", "WALK"),
        ("target_price", None),
    ],
)
def test_what_pieces_cannot_tell_is_spelled_whole(name, value):
    row = {"rho_train": 0.5, "turn": 2, "max_turns": 10, "price_low": 0.0, "price_high": 10.0, "reservation_price": 7.0,
           "last_offer_price": 4.0, "history_roles": ["buyer"], "history_prices": [4.0], "target_action": "OFFER",
           "target_price": 5.0, "role": "seller"}  # fmt: skip
    table = table_of([row, {**row, name: value}])
    with pytest.raises(Unspellable):
        codes(table, labels(table), 8, 2)

    def outcome(spell):
        try:
            return [column.tolist() for column in spell()]
        except (TypeError, ValueError) as error:
            return type(error), str(error)

    how = Spelling(NANO, 8, 1024, 2)
    assert outcome(lambda: tokenised(table, labels(table), how)) == outcome(
        lambda: joined(whole(table, labels(table), how))
    )


def test_a_tokenizer_that_joins_parts_is_found_out(steps):
    words = ["<pad>", "<eos>", "<unk>", "0\n<"]
    characters = [chr(i) for i in range(32, 127)] + ["\n"]
    machine = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*words, *characters])}, unk_token="<unk>"))
    machine.pre_tokenizer = pre_tokenizers.Split(Regex("0\\n<|[\\s\\S]"), behavior="isolated")
    joins = PreTrainedTokenizerFast(tokenizer_object=machine, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    table = steps.slice(0, 200)
    how = Spelling(joins, 8, 1024, 2)
    with pytest.raises(Unspellable):
        list(in_pieces(table, labels(table), how))
    assert same(tokenised(table, labels(table), how), joined(whole(table, labels(table), how)))


def test_what_cannot_be_spelled_says_so(steps):
    with pytest.raises(InputError, match="max_length 5 leaves no room"):
        tokenised(steps.slice(0, 3), labels(steps)[:3], Spelling(NANO, 8, 5, 2))
    with pytest.raises(InputError, match="needs the column 'role'"):
        tokenised(steps.drop_columns("role"), labels(steps), Spelling(NANO, 8, 1024, 4))


def test_the_number_of_the_spelling_stands_for_these_ids():
    """Where this fails, prompts have become others: raise `SPELLING`, so that no kept ids of the old ones are used."""
    row = {"rho_train": 0.53, "turn": 3, "max_turns": 10, "price_low": 200.0, "price_high": 1500.0,
           "reservation_price": 803.0, "last_offer_price": 900.0, "history_roles": ["buyer", "seller"],
           "history_prices": [400.0, 900.0], "target_action": "OFFER", "target_price": 512.3, "role": "buyer"}  # fmt: skip
    accepts = {**row, "target_action": "ACCEPT", "target_price": None, "rho_train": -1.0}
    table = table_of([row, accepts])
    digest = hashlib.sha256()
    for prompt_format in (1, 2, 3, 4):
        for column in tokenised(table, labels(table), Spelling(NANO, 8, 1024, prompt_format)):
            digest.update(column.astype(np.int64).tobytes())
    assert (tokenise.SPELLING, digest.hexdigest()[:16]) == (1, "e4d9fc1b0c8e073d")
