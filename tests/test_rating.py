"""`experiments.reporting.rating`: Bradley-Terry against closed forms, a logit fit, and where there is no maximum."""

import numpy as np
import pytest
from made_episodes import crossed, table

from experiments.reporting import rating, summary


def test_two_players_in_closed_form():
    """β₁ - β₂ is the log odds."""
    beta = rating.bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]), prior=0.0)
    assert beta == pytest.approx([np.log(3) / 2, -np.log(3) / 2])
    assert rating.ELO * (beta[0] - beta[1]) == pytest.approx(400 * np.log10(3))


def test_three_players_whose_odds_multiply():
    """Odds of 2 and of 3 make odds of 6, so the model fits these games exactly."""
    points = np.array([[0.0, 40.0, 60.0], [20.0, 0.0, 30.0], [10.0, 10.0, 0.0]])
    beta = rating.bradley_terry(points, prior=0.0)
    assert np.diff(beta) == pytest.approx([-np.log(2), -np.log(3)])
    assert beta.sum() == pytest.approx(0.0)
    other = rating.bradley_terry(points + np.eye(3)[::-1] * 5, prior=0.0)
    assert abs(np.diff(other)[0] + np.log(2)) > 0.01


def test_same_as_a_logit_fit():
    models = pytest.importorskip("statsmodels.api")
    points = np.random.default_rng(0).integers(1, 40, (5, 5)).astype(float)
    np.fill_diagonal(points, 0.0)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    design = np.array([np.eye(5)[i] - np.eye(5)[j] for i, j in pairs])[:, 1:]  # the strength of 0 is 0
    wins = np.array([[points[i, j], points[j, i]] for i, j in pairs])
    fit = models.GLM(wins, design, family=models.families.Binomial()).fit(tol=1e-12)
    expected = np.array([0.0, *fit.params])
    found = rating.bradley_terry(points, prior=0.0)
    assert np.ptp(found) > 0.2
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-7)


def test_many_are_fitted_as_each_alone():
    points = np.random.default_rng(1).integers(0, 9, (20, 4, 4)).astype(float)
    together = rating.bradley_terry(points)
    np.testing.assert_allclose(together, [rating.bradley_terry(p) for p in points], atol=1e-9)
    np.testing.assert_allclose(together, rating.bradley_terry(points, np.array([3.0, -3, 1, -1])), atol=1e-8)
    assert np.ptp(together, axis=0).min() > 0.1


def test_who_always_wins_has_a_rating_and_the_bare_likelihood_has_none():
    always = np.array([[0.0, 200.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="no maximum"):
        rating.bradley_terry(always, prior=0.0)
    few, many = (rating.ELO * np.diff(rating.bradley_terry(always * k))[0] for k in (0.1, 1.0))
    assert -1100 < many < few - 200 < -500  # the more games say so, the larger
    assert many == pytest.approx(-400 * np.log10(2 * 200), abs=60)
    apart = np.zeros((4, 4))
    apart[0, 1], apart[1, 0], apart[2, 3], apart[3, 2] = 3, 1, 3, 1
    with pytest.raises(ValueError, match="no maximum"):
        rating.bradley_terry(apart, prior=0.0)
    assert np.isfinite(rating.bradley_terry(apart)).all()


def test_what_the_drawn_games_cost():
    """A percent of the interval that so many games leave."""
    points = 100.0 * np.array([[0.0, 40.0, 60.0], [20.0, 0.0, 30.0], [10.0, 10.0, 0.0]])
    bare, ours = (rating.ELO * rating.bradley_terry(points, prior=prior) for prior in (0.0, rating.PRIOR))
    assert 0.0 < np.abs(bare - ours).max() < 0.1


def entries(strengths, scenarios=40, seed=0):
    """Scripts whose utility in each game is their strength and luck."""
    g = np.random.default_rng(seed)
    names = [f"script:{i}" for i in range(len(strengths))]
    games = crossed(agent=names, agent_seat=["buyer", "seller"], opponent=["a", "b", "c"], scenario_id=range(scenarios))
    own = np.unique(games["agent"], return_inverse=True)[1]
    games["utility"] = np.round(np.array(strengths)[own] + g.logistic(size=len(own)))  # some are ties
    games["rho_achieved"] = np.full(len(own), 0.5)
    return games, names


def test_the_table_of_a_summary():
    games, names = entries([0.0, 1.0, -1.0])
    found = summary.summarise(table(games), {"agents": names, "seed": 0})
    rows = found["rating"]
    assert [r["agent"] for r in rows] == ["script:1", "script:0", "script:2"]
    assert sum(r["rating"] for r in rows) == pytest.approx(0.0, abs=1e-4)
    wins, ties = np.array(found["duels"]["wins"]), np.array(found["duels"]["ties"])
    expected = rating.ELO * rating.bradley_terry(wins + ties / 2.0)
    assert ties.sum() > 50
    for row in rows:
        i = names.index(row["agent"])
        assert row["low"] < row["rating"] < row["high"]
        assert row["rating"] == pytest.approx(expected[i], abs=1e-4)
        assert (row["wins"], row["losses"], row["ties"]) == (wins[i].sum(), wins[:, i].sum(), ties[i].sum())
        assert row["wins"] + row["losses"] + row["ties"] == 2 * 2 * 3 * 40
    assert rows[0]["low"] > rows[1]["high"] > rows[1]["low"] > rows[2]["high"]


def test_nobody_to_compare_with_is_not_rated():
    games, names = entries([0.0])
    found = summary.summarise(table(games), {"agents": names})
    assert (found["rating"], found["tests"], len(found["ranking"])) == ([], [], 1)
    games, names = entries([0.0, 1.0], scenarios=1)
    found = summary.summarise(table(games), {"agents": names})["rating"]
    assert [(r["low"], r["high"]) for r in found] == [(None, None)] * 2
    assert found[0]["rating"] > 0
