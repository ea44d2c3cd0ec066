"""Intervals that say 95 % hold the truth in 93 to 97 % of simulated tournaments whose truth is known."""

import numpy as np
import pytest
from made_episodes import crossed, table
from scipy import stats
from scipy.special import expit

from experiments.reporting import rating, significance, statistics, summary
from experiments.reporting.duels import Duels, Entry

GAMES = 10
"""Of one agent in one scenario, where there are several."""


def one_cell(g, scenarios, n):
    """Four games in five are settled; shares are skewed."""
    settled = g.random((scenarios, n)) < 0.8
    return g.beta(2, 5, (scenarios, n)) * settled, np.ones((scenarios, n)), 0.8 * 2 / 7


def all_opponents(g, scenarios, n):
    """The scenario decides how many games are settled and how well."""
    deals = g.binomial(GAMES, g.beta(4, 1, (scenarios, n)))
    return deals * g.beta(2, 5, (scenarios, n)), np.full((scenarios, n), float(GAMES)), 0.8 * 2 / 7


def rho_of_deals(games):
    """A ratio whose denominator is random, and related to the numerator."""

    def simulate(g, scenarios, n):
        z = g.normal(size=(scenarios, n))
        deals = g.binomial(games, expit(1 + z)).astype(float)
        rho = 0.5 + 0.1 * z + 0.1 * g.normal(size=z.shape) / np.sqrt(np.maximum(deals, 1))
        grid = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)
        return rho * deals, deals, float(np.average(0.5 + 0.1 * grid, weights=expit(1 + grid)))

    return simulate


def difference(g, scenarios, n):
    """Of two agents in the same scenarios, with a shared and an own part."""
    both = g.normal(size=(scenarios, n))
    a = both + g.exponential(size=both.shape) + 0.2
    return a - both - g.exponential(size=both.shape), np.ones_like(both), 0.2


def share_covered(simulate, scenarios, n, seed=7):
    total, games, truth = simulate(np.random.default_rng(seed), scenarios, n)
    low, high = statistics.ratio_intervals(total, games, seed=3)
    assert np.all(high > low)
    return np.mean((low <= truth) & (truth <= high))


SIMULATIONS = {
    "utility of one cell": one_cell,
    "utility against all opponents": all_opponents,
    "rho of the deals of one cell": rho_of_deals(1),
    "rho of all deals": rho_of_deals(8),
    "paired difference": difference,
}


@pytest.mark.parametrize("name", SIMULATIONS)
@pytest.mark.parametrize("scenarios", [20, 40])
def test_means_and_ratios(name, scenarios):
    assert 0.93 <= share_covered(SIMULATIONS[name], scenarios, 4000) <= 0.97


def test_plain_percentiles_would_not_do():
    """The control: with 10 scenarios they cover about 90 %, the expanded ones 93 % or more."""
    total, games, truth = one_cell(np.random.default_rng(7), 10, 4000)
    sums = statistics.resampled_sums(total, seed=3) / len(games)
    low, high = np.percentile(sums, [2.5, 97.5], axis=0)
    assert np.mean((low <= truth) & (truth <= high)) < 0.915
    assert 0.93 <= share_covered(one_cell, 10, 4000) <= 0.97


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_rates_of_clustered_games(rate):
    g = np.random.default_rng(11)
    chance = g.beta(4 * rate, 4 * (1 - rate), (20, 4000))
    deals, games = g.binomial(8, chance), np.full((20, 4000), 8.0)
    low, high = statistics.rate_intervals(deals, games)
    assert 0.93 <= np.mean((low <= rate) & (rate <= high)) <= 0.97
    naive = statistics.wilson_intervals(deals.sum(axis=0), games.sum(axis=0))
    assert np.mean((naive[0] <= rate) & (rate <= naive[1])) < 0.85


def test_rates_near_one_are_covered_where_resampling_is_not():
    g = np.random.default_rng(12)
    deals, games = g.binomial(20, g.beta(3.96, 0.04, (20, 4000))), np.full((20, 4000), 20.0)
    resampled, ours = statistics.ratio_intervals(deals, games, seed=3), statistics.rate_intervals(deals, games)
    covered = [np.mean((low <= 0.99) & (high >= 0.99)) for low, high in (resampled, ours)]
    assert covered[0] < 0.75
    assert covered[1] > 0.93


# ── through the whole summary ─────────────────────────────────────────────────────────────────────────────────────────


def dials(agents, scenarios, seed):
    """Agents with slope .6, bias by scenario, noise by game and impasses: each one is a tournament of its own."""
    g = np.random.default_rng(seed)
    games = crossed(
        agent=[f"dial{i:04d}" for i in range(agents)],
        agent_seat=["seller"],
        rho_requested=[0.1, 0.3, 0.5, 0.7, 0.9],
        opponent=["a", "b"],
        scenario_id=range(scenarios),
    )
    own = np.unique(games["agent"], return_inverse=True)[1]
    shift = 0.05 * g.normal(size=(agents, scenarios))[own, games["scenario_id"]]
    noise = g.normal(size=len(own))
    rho = 0.25 + 0.6 * games["rho_requested"] + shift + 0.05 * noise
    settled = g.random(len(own)) < np.where(games["opponent"] == "a", 0.9, 0.7)
    games["rho_achieved"] = np.where(settled, rho, np.nan)
    return table(games), sorted(set(games["agent"]))


SLOPE = 0.6
GRID = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def true_mae():
    """Mean of |N(m, s²)| over the grid."""
    m, s = 0.25 - 0.4 * GRID, 0.05 * np.sqrt(2)
    return float(np.mean(s * np.sqrt(2 / np.pi) * np.exp(-(m**2) / (2 * s * s)) + m * (1 - 2 * stats.norm.cdf(-m / s))))


def check_dials(agents, scenarios, low, high):
    episodes, names = dials(agents, scenarios, seed=5)
    found = summary.summarise(episodes, {"agents": names[:1], "controls": names, "opponents": ["a", "b"], "seed": 3})
    truth = {"slope": SLOPE, "intercept": 0.25, "mae": true_mae(), "bias": 0.25 - 0.4 * 0.5, "agreement_rate_all": 0.8}
    rows = [found["calibration_by_agent"][name]["seller"] for name in names]
    for name, value in truth.items():
        covered = np.mean([row[f"{name}_low"] <= value <= row[f"{name}_high"] for row in rows])
        assert low <= covered <= high, name
    means = [[a <= m <= b for a, m, b in zip(r["achieved_low"], 0.25 + 0.6 * GRID, r["achieved_high"], strict=True)]
             for r in rows]  # fmt: skip
    assert 0.93 <= np.mean(means) <= 0.97
    cells = [c["rho_achieved_low"] <= 0.25 + 0.6 * c["rho_requested"] <= c["rho_achieved_high"] for c in found["cells"]]
    assert 0.93 <= np.mean(cells) <= 0.97
    rates = {"a": 0.9, "b": 0.7}
    cells = [c["agreement_rate_low"] <= rates[c["opponent"]] <= c["agreement_rate_high"] for c in found["cells"]]
    assert 0.93 <= np.mean(cells) <= 0.97


def test_calibration_and_cells_of_a_summary():
    """300 agents: of a share of 95 % that is ±1.3 %."""
    check_dials(300, 30, 0.925, 0.98)


@pytest.mark.slow
def test_calibration_of_many_summaries():
    check_dials(3000, 30, 0.93, 0.97)


# ── ratings ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STRENGTH = np.array([-0.8, -0.1, 0.2, 0.7])


def rated(g, scenarios):
    """Points of 4 entries that gain Gumbel variables, so that who gains more follows Bradley and Terry's model; what an
    entry gains in the games of one scenario is related.
    """
    z = np.sqrt(0.5) * (g.normal(size=(4, scenarios, 1)) + g.normal(size=(4, scenarios, GAMES)))
    gains = STRENGTH[:, None, None] + stats.gumbel_r.ppf(stats.norm.cdf(z))
    return np.moveaxis((gains[:, None] > gains[None]).sum(axis=-1), -1, 0).astype(float)


def check_ratings(n, low, high):
    g, truth = np.random.default_rng(9), rating.ELO * (STRENGTH - STRENGTH.mean())
    entries = [Entry(str(i), None, {}, np.zeros(0, dtype=np.intp)) for i in range(4)]
    covered = []
    for _ in range(n):
        points = rated(g, 30)
        wins = points.sum(axis=0).astype(np.int64)
        for row in rating.rating(entries, Duels(points, wins, np.zeros_like(wins)), seed=3):
            covered.append(row["low"] <= truth[int(row["agent"])] <= row["high"])
    assert low <= np.mean(covered) <= high


def test_ratings():
    check_ratings(250, 0.93, 0.97)


@pytest.mark.slow
def test_many_ratings():
    check_ratings(2000, 0.935, 0.965)


# ── tests of no effect ────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_an_effect_p_values_are_uniform():
    total, games, _ = all_opponents(np.random.default_rng(13), 20, 2000)
    other, _, _ = all_opponents(np.random.default_rng(14), 20, 2000)
    p = np.array([significance.p_value(d) for d in ((total - other) / games).T])
    assert stats.kstest(p, "uniform").pvalue > 0.05
    assert 0.035 < np.mean(p < 0.05) < 0.065
    shifted = np.array([significance.p_value(d + 0.1) for d in ((total - other) / games).T[:500]])
    assert np.mean(shifted < 0.05) > 0.3


def test_of_families_without_an_effect_one_in_twenty_makes_a_claim(monkeypatch):
    """Comparisons with one reference hang together, as they share its games."""
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels calls it for every family: a minute of nothing
    g = np.random.default_rng(15)
    false = []
    for _ in range(600):
        reference, others = g.beta(2, 5, 30), g.beta(2, 5, (9, 30))
        rows = [{"p": significance.p_value(other - reference)} for other in others]
        false.append(min(row["p_holm"] for row in significance.corrected(rows)) < 0.05)
        assert len(rows) == 9
    assert 0.01 < np.mean(false) < 0.065
