"""`experiments.reporting.statistics` against scipy, closed forms and coverage."""

import math

import numpy as np
import pytest

from experiments.reporting import statistics


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 8, 60).astype(float)  # many ties
    return x, x + rng.normal(0, 3, 60)


def test_ranks_share_ties():
    assert statistics.ranks([10, 20, 20, 5]).tolist() == [2, 3.5, 3.5, 1]


def test_same_as_scipy(samples):
    stats = pytest.importorskip("scipy.stats")
    x, y = samples
    assert statistics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert statistics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    np.testing.assert_allclose(statistics.ranks(x), stats.rankdata(x))
    for k, n in ((0, 7), (3, 9), (40, 40)):
        expected = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert statistics.wilson_interval(k, n) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("x", "y"), [([1, 1, 1], [1, 2, 3]), ([1, 2], [4, 4]), ([1], [1]), ([], [])])
def test_constant_input_has_no_correlation(x, y):
    assert math.isnan(statistics.spearman(x, y))


def test_a_rate_without_trials_has_no_interval():
    assert all(math.isnan(v) for v in statistics.wilson_interval(0, 0))


def test_monotone_is_one_whatever_its_shape():
    x = np.linspace(0, 1, 11)
    assert statistics.spearman(x, np.exp(5 * x)) == pytest.approx(1.0)
    assert statistics.spearman(x, -(x**3)) == pytest.approx(-1.0)


def test_resampling_depends_on_seed_and_clusters_alone(monkeypatch):
    values = np.arange(12.0).reshape(6, 2)
    first = statistics.resampled_sums(values, seed=1, draws=50)
    monkeypatch.setattr(statistics, "_CHUNK", 30)
    assert np.array_equal(first, statistics.resampled_sums(values, seed=1, draws=50))
    assert not np.array_equal(first, statistics.resampled_sums(values, seed=2, draws=50))
    # the columns are resampled with the same clusters: value 2i + 1 goes with 2i
    np.testing.assert_allclose(first[:, 1] - first[:, 0], 6.0)


def test_clustered_interval_is_wider_than_a_naive_one():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(40, 1)) + 0.01 * rng.normal(size=(40, 25))  # 25 games, one truth, in each scenario
    low, high = statistics.ratio_intervals(shared.sum(axis=1)[:, None], np.full((40, 1), 25.0), seed=0)
    flat_low, flat_high = statistics.ratio_intervals(shared.reshape(-1, 1), np.ones((1000, 1)), seed=0)
    assert (high - low)[0] > 3 * (flat_high - flat_low)[0]


def test_interval_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(60, 300))  # 300 experiments of 60 clusters with mean 0
    low, high = statistics.ratio_intervals(draws, np.ones_like(draws), seed=3)
    assert 0.89 < np.mean((low <= 0) & (high >= 0)) < 0.98


def test_nothing_to_resample_gives_no_interval():
    assert np.isnan(statistics.ratio_intervals([[1.0]], [[1.0]], seed=0)).all()
    low, high = statistics.ratio_intervals(np.zeros((5, 2)), np.array([[0.0, 1.0]] * 5), seed=0)
    assert np.isnan([low[0], high[0]]).all()
    assert [low[1], high[1]] == [0.0, 0.0]


def test_without_a_single_deal_there_is_no_interval_of_their_settlement():
    """Not one column has a sample: an agent that never settles."""
    low, high = statistics.ratio_intervals(np.zeros((5, 2)), np.zeros((5, 2)), seed=0)
    assert np.isnan([*low, *high]).all()
    assert len(low) == len(high) == 2


def test_pairing_removes_what_the_scenarios_share():
    rng = np.random.default_rng(4)
    luck = rng.normal(size=50)
    mean, low, high = statistics.paired_interval(luck + 0.1, luck + 0.01 * rng.normal(size=50), seed=0)
    assert 0.09 < low < mean < high < 0.11
