"""The rule of early stopping: when it stops, what it keeps, and that a resumed run stops at the same step."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bargain_env.errors import InputError
from hyperlora.early_stopping import EarlyStopping


def stops_at(values, rule):
    """Steps at which the rule says stop."""
    return [step for step, value in enumerate(values, 1) if rule.update(step, value)]


def test_patience_counts_evaluations_without_improvement():
    rule = EarlyStopping(patience=2)
    assert stops_at([3.0, 2.0, 2.0, 1.9, 2.5, 1.9, 1.0], rule)[0] == 6
    assert (rule.best_value, rule.best_step) == (1.0, 7)
    assert EarlyStopping(patience=3).stopped is False


def test_patience_zero_never_stops_and_keeps_the_best():
    rule = EarlyStopping()
    assert stops_at([1.0, *[2.0] * 50], rule) == []
    assert (rule.best_value, rule.best_step, rule.since) == (1.0, 1, 50)


def test_min_delta_is_what_an_improvement_must_exceed():
    values = [1.0, 0.95, 0.9]
    fine, coarse = EarlyStopping(patience=2), EarlyStopping(patience=2, min_delta=0.1)
    assert stops_at(values, fine) == []
    assert stops_at(values, coarse) == [3]
    assert coarse.best_step == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_becomes_best(bad):
    rule = EarlyStopping(patience=3)
    assert stops_at([bad, 2.0, bad, bad, bad], rule) == [5]
    assert (rule.best_value, rule.best_step) == (2.0, 2)
    assert stops_at([bad] * 3, EarlyStopping(patience=3)) == [3]


def test_a_resumed_run_stops_at_the_same_step():
    values = np.random.default_rng(3).normal(size=40).tolist()
    whole = EarlyStopping(patience=6, min_delta=0.01)
    wanted, end = stops_at(values, whole), whole.as_dict()
    assert 1 < wanted[0] < 40
    for cut in range(len(values) + 1):
        first = EarlyStopping(patience=6, min_delta=0.01)
        stops_at(values[:cut], first)
        resumed = EarlyStopping.from_dict(json.loads(json.dumps(first.as_dict())))
        later = [s for s, v in enumerate(values[cut:], cut + 1) if resumed.update(s, v)]
        assert later == [s for s in wanted if s > cut]
        assert resumed.as_dict() == end


def test_bad_settings_states_and_repeats_are_refused():
    with pytest.raises(InputError, match="patience -1"):
        EarlyStopping(patience=-1)
    for delta in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match="min_delta"):
            EarlyStopping(min_delta=delta)
    with pytest.raises(InputError, match="early-stopping state"):
        EarlyStopping.from_dict({"patience": 1})
    rule = EarlyStopping(patience=1)
    rule.update(5, 1.0)
    with pytest.raises(ValueError, match="each step counts once"):
        rule.update(5, 1.0)
    assert rule.since == 0
