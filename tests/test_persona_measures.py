"""Figures of predicted decisions, by hand, and the intervals of their differences."""

import numpy as np
import pytest

from experiments.persona.measures import FIGURES, Predicted, Truth, difference, figures, is_answer, named, sums


def known():
    """Six decisions of three games, and one way to predict them."""
    nan = np.nan
    truth = Truth(
        np.array([True, True, False, False, False, False]),
        np.array([nan, nan, 0.5, 0.25, 0.1, 0.9]),
        [""] * 6,
        np.array([0, 0, 0, 1, 1, 1]),
        np.array([0, 0, 1, 2, 2, 2]),
    )
    predicted = Predicted(
        np.array([True, False, True, False, False, False]),
        np.array([nan, 0.3, nan, 0.25, 0.2, 0.6]),
        np.array([-1.0, -2.0, -3.0, -1.0, -1.0, -4.0]),
        np.array([False, False, True, False, False, False]),
        [""] * 6,
    )
    return truth, predicted


def test_figures_by_hand():
    truth, predicted = known()
    found = named(figures(*sums(truth, predicted, np.unique(truth.game, return_inverse=True)[1])))
    assert found == pytest.approx(
        {
            "action_accuracy": 4 / 6,
            "accept_precision": 1 / 2,
            "accept_recall": 1 / 2,
            "accept_f1": 1 / 2,
            "offer_f1": 6 / 8,
            "price_mae": (0 + 0.1 + 0.3) / 3,
            "price_coverage": 3 / 4,
            "exact_price_rate": 1 / 4,
            "log_likelihood": -2.0,
            "invalid_rate": 1 / 6,
        }
    )


@pytest.mark.parametrize(
    ("text", "may_accept", "legal"),
    [
        ("ACCEPT", True, True),
        ("ACCEPT", False, False),
        ("OFFER 0.5123", True, True),
        ("OFFER 0.0000", False, True),
        ("OFFER 1.0000", False, True),
        ("OFFER 1.0001", True, False),
        ("OFFER -0.1000", True, False),
        ("OFFER 0.5", True, False),
        ("OFFER 0.51230", True, False),
        ("OFFER  0.5123", True, False),
        ("I will not ACCEPT that", True, False),
        ("rubbish ... OFFER 0.5123xyz", True, False),
        ("OFFER 0.5123 OFFER 0.6", True, False),
        ("", True, False),
    ],
)
def test_only_an_answer_to_the_letter_is_valid(text, may_accept, legal):
    assert is_answer(text, may_accept) == legal


def test_differences_are_paired_by_cluster():
    truth, predicted = known()
    part = sums(truth, predicted, truth.game)
    gap, low, high = difference(part, part, 0)
    assert np.nan_to_num(gap).tolist() == [0.0] * len(FIGURES)
    assert np.nanmax(np.abs([low, high])) == 0.0
    better = Predicted(
        predicted.accept, predicted.price, predicted.log_likelihood + 1.0, predicted.invalid, predicted.text
    )
    gap, low, high = difference(sums(truth, better, truth.game), part, 0)
    at = FIGURES.index("log_likelihood")
    assert [gap[at], low[at], high[at]] == pytest.approx([1.0, 1.0, 1.0])  # the same gain in every game has no spread
    one = sums(truth, predicted, np.zeros(6, dtype=int))
    assert np.isnan(difference(one, one, 0)[1]).all()
