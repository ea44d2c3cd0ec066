"""`experiments.reporting.statistics`: correlations, intervals of rates, resampling. Coverage is in ``test_coverage.py``."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.reporting import statistics


def test_constant_input_has_no_correlation():
    assert statistics.spearman([1, 2, 2], [5, 7, 9]) == pytest.approx(np.sqrt(3) / 2)  # ranks 1, 2½, 2½ with 1, 2, 3
    for x, y in (([1, 1, 1], [1, 2, 3]), ([1, 2], [4, 4]), ([1], [1]), ([], [])):
        assert math.isnan(statistics.spearman(x, y))


def test_rank_correlations_of_many_rows_are_those_of_each():
    g = np.random.default_rng(0)
    x, rows = np.linspace(0, 1, 7), g.integers(0, 4, (200, 7)).astype(float)
    rows[g.random(rows.shape) < 0.2] = np.nan
    rows[0], rows[1] = np.nan, 3.0
    found = statistics.spearman_rows(x, rows)
    expected = [statistics.spearman(x[~np.isnan(row)], row[~np.isnan(row)]) for row in rows]
    assert np.isnan(found).sum() >= 2
    assert np.nanstd(found) > 0.2
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_wilson_is_scipys():
    low, high = statistics.wilson_intervals([0, 3, 40, 0], [7, 9, 40, 0])
    for i, (k, n) in enumerate(((0, 7), (3, 9), (40, 40))):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high))
    assert np.isnan([low[3], high[3]]).all()


def test_a_rate_of_clusters_that_agree_within_tells_as_much_as_there_are_clusters():
    """20 scenarios of 10 games: all alike within a scenario, or all alike in number of deals."""
    together = np.array([10.0] * 12 + [0.0] * 8)[:, None]
    spread, n = np.full((20, 1), 6.0), np.full((20, 1), 10.0)
    wide, narrow = (np.diff(np.ravel(statistics.rate_intervals(k, n)))[0] for k in (together, spread))
    of_games = np.diff(np.ravel(statistics.wilson_intervals([120], [200])))[0]
    of_scenarios = np.diff(np.ravel(statistics.wilson_intervals([12], [20])))[0]
    assert wide > 2 * narrow
    assert wide == pytest.approx(of_scenarios, rel=0.12)  # a little wider: Student's quantile
    assert narrow == pytest.approx(of_games, rel=0.12)
    # the variance of 20 clusters that are 1 or 0 is that of 19 games; Student's quantile makes it fewer still
    n_effective = 19 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 19)) ** 2
    expected = statistics.wilson_intervals([0.6 * n_effective], [n_effective])
    np.testing.assert_allclose(statistics.rate_intervals(together, n), expected, rtol=1e-9)


def test_a_rate_of_one_is_not_certain():
    low, high = statistics.rate_intervals(np.full((20, 2), 10.0), np.full((20, 2), [10.0, 20.0]))
    assert 0.8 < low[0] < 0.85  # as of 20 games, not of 200
    assert high[0] == 1.0
    assert low[1] < 0.5 < high[1]
    lone = statistics.rate_intervals([[3.0, 0.0]], [[4.0, 0.0]])
    assert np.isnan(lone).all()


def test_resampling_depends_on_seed_and_clusters_alone(monkeypatch):
    values = np.arange(12.0).reshape(6, 2)
    first = statistics.resampled_sums(values, seed=1, draws=50)
    monkeypatch.setattr(statistics, "_CHUNK", 30)
    assert np.array_equal(first, statistics.resampled_sums(values, seed=1, draws=50))
    assert not np.array_equal(first, statistics.resampled_sums(values, seed=2, draws=50))
    # the columns are resampled with the same clusters: value 2i + 1 goes with 2i
    np.testing.assert_allclose(first[:, 1] - first[:, 0], 6.0)


def test_expanded_percentiles_of_normal_draws_are_students_interval():
    """What the method is made for: bootstrap means of g values are about normal with variance (g - 1) / g of s² / g."""
    g, draws = 8, 400_000
    sample = stats.norm.ppf((np.arange(draws) + 0.5) / draws) * np.sqrt((g - 1) / g)
    low, high = statistics.expanded_interval(np.stack([sample, sample], axis=1), np.array([g, 1e6]))
    assert high[0] == pytest.approx(stats.t.ppf(0.975, g - 1), rel=1e-3)
    assert low[0] == pytest.approx(-high[0])
    assert high[1] == pytest.approx(1.96 * np.sqrt((g - 1) / g), rel=1e-3)  # many clusters: the plain percentile


def test_samples_that_are_missing_are_left_out():
    x = np.arange(1001.0)
    gaps = np.concatenate([x, np.full(500, np.nan)])
    whole = np.concatenate([x, x[:500]])
    low, high = statistics.expanded_interval(np.stack([gaps, whole, np.full(1501, np.nan)], axis=1), 1e9)
    assert (low[0], high[0]) == pytest.approx((25.0, 975.0), abs=0.01)
    assert low[1] < low[0]
    assert np.isnan([low[2], high[2]]).all()


def test_clustered_interval_is_wider_than_a_naive_one():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(40, 1)) + 0.01 * rng.normal(size=(40, 25))  # 25 games, one truth, in each scenario
    low, high = statistics.ratio_intervals(shared.sum(axis=1)[:, None], np.full((40, 1), 25.0), seed=0)
    flat_low, flat_high = statistics.ratio_intervals(shared.reshape(-1, 1), np.ones((1000, 1)), seed=0)
    assert (high - low)[0] > 3 * (flat_high - flat_low)[0]


def test_nothing_to_resample_gives_no_interval():
    assert np.isnan(statistics.ratio_intervals([[1.0]], [[1.0]], seed=0)).all()
    low, high = statistics.ratio_intervals(np.zeros((5, 2)), np.array([[0.0, 1.0]] * 5), seed=0)
    assert np.isnan([low[0], high[0]]).all()
    assert [low[1], high[1]] == [0.0, 0.0]


def test_one_scenario_with_deals_gives_no_interval_of_their_settlement():
    """Drawn again it is always the same number, which says nothing of how sure that is."""
    rho, deals = np.array([[0.4, 0.4], [0.0, 0.6], [0.0, 0.0]]), np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    low, high = statistics.ratio_intervals(rho, deals, seed=0)
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == pytest.approx((0.4, 0.6))
