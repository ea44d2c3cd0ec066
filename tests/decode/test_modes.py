"""Modes and what they are written as."""

from __future__ import annotations

import pytest

from bargain_env.errors import InputError
from hyperlora.decode import Mode
from hyperlora.decode.modes import MODES


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("greedy", Mode("greedy")),
        ("sample", Mode("sample")),
        ("sample:0.7", Mode("sample", temperature=0.7)),
        ("mean", Mode("mean")),
        ("median", Mode("quantile", q=0.5)),
        ("quantile:0.3", Mode("quantile", q=0.3)),
        ("free", Mode("free")),
    ],
)
def test_read_and_written(text, mode):
    assert Mode.parse(text) == mode
    assert str(mode) == text
    assert Mode.parse(mode) is mode
    assert mode.draws is text.startswith("sample")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("beam", "unknown decode mode"),
        ("meen", "did you mean 'mean'"),
        ("", "unknown decode mode"),
        ("sample:0", "must be positive"),
        ("sample:-1", "must be positive"),
        ("sample:", "is no number"),
        ("sample:hot", "'hot' is no number"),
        ("sample:nan", "is no number"),
        ("sample:inf", "is no number"),
        ("quantile", "give a quantile"),
        ("quantile:0", "between 0 and 1"),
        ("quantile:1", "between 0 and 1"),
        ("greedy:2", "takes no number"),
        ("median:0.4", "takes no number"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        Mode.parse(text)


def test_every_name_is_a_mode():
    for name in MODES:
        assert Mode.parse(name if name != "quantile" else "quantile:0.1").kind == (
            name if name != "median" else "quantile"
        )
