"""`experiments.reporting.significance` and `duels`: who is compared with whom, on which games, and how it is corrected."""

import numpy as np
import pytest
from made_episodes import crossed, joined, table
from scipy import stats

from experiments.reporting import significance, summary

SETTINGS = {"agents": ["script:x", "script:y", "dial"], "opponents": ["a", "b"], "seed": 0}


def scripts(*, scenarios=12, seed=0):
    """Two scripts and a dial that never settle at the same ρ twice, but for ten games that x and y settle alike."""
    g = np.random.default_rng(seed)
    plain = crossed(
        agent=["script:x", "script:y"],
        agent_seat=["buyer", "seller"],
        rho_requested=[np.nan],
        opponent=["a", "b"],
        scenario_id=range(scenarios),
    )
    dial = crossed(
        agent=["dial"],
        agent_seat=["buyer", "seller"],
        rho_requested=[0.0, 0.2, 0.8, 1.0],
        opponent=["a", "b"],
        scenario_id=range(scenarios),
    )
    games = joined(plain, dial)
    games["rho_achieved"] = g.uniform(size=len(games["agent"]))
    size = 4 * scenarios
    games["rho_achieved"][:10] = games["rho_achieved"][size : size + 10]
    return games


def utilities(games, agent, rho=None):
    """``[seat, opponent, scenario]``; ``rho`` by seat."""
    out = []
    for seat in ("buyer", "seller"):
        mine = (games["agent"] == agent) & (games["agent_seat"] == seat)
        if rho is not None:
            mine &= games["rho_requested"] == rho[seat]
        achieved = games["rho_achieved"][mine].reshape(2, -1)
        out.append(achieved if seat == "seller" else 1 - achieved)
    return np.array(out)


def test_every_entry_against_the_reference_by_hand():
    games = scripts()
    found = summary.summarise(table(games), SETTINGS)
    rows = {(r["agent"], r["configuration"]): r for r in found["tests"]}
    dials = {
        "standard": {"buyer": 0.2, "seller": 0.8},
        "extreme": {"buyer": 0.0, "seller": 1.0},
        "flipped": {"buyer": 0.8, "seller": 0.2},
    }
    assert set(rows) == {("script:y", None), *(("dial", name) for name in dials)}
    reference = utilities(games, "script:x")
    p = []
    for (agent, name), row in rows.items():
        gap = utilities(games, agent, dials.get(name)) - reference
        assert (row["against"], row["against_configuration"]) == ("script:x", None)
        assert row["difference"] == pytest.approx(gap.mean(), abs=2e-6)
        assert row["low"] < row["difference"] < row["high"]
        assert (row["wins"], row["losses"]) == ((gap > 1e-9).sum(), (gap < -1e-9).sum())
        assert row["wins"] + row["ties"] + row["losses"] == 48
        p.append(stats.ttest_1samp(gap.mean(axis=(0, 1)), 0).pvalue)
        assert row["p"] == pytest.approx(p[-1], abs=2e-6)
    assert rows["script:y", None]["ties"] == 10
    assert [r["ties"] for r in rows.values()].count(0) == 3
    assert [r["p_holm"] for r in rows.values()] != [r["p"] for r in rows.values()]


def test_the_reference_is_the_first_agents_standard_setting():
    games = table(scripts())
    found = summary.summarise(games, {**SETTINGS, "agents": ["dial", "script:x", "script:y"]})["tests"]
    assert {(r["against"], r["against_configuration"]) for r in found} == {("dial", "standard")}
    later = {"soft": [0.8, 0.2], "standard": [0.2, 0.8]}
    found = summary.summarise(games, {**SETTINGS, "agents": ["dial"], "configurations": later})["tests"]
    assert {(r["against"], r["against_configuration"]) for r in found} == {("dial", "standard")}
    given = {**SETTINGS, "agents": ["dial"], "configurations": {"soft": [0.8, 0.2], "hard": [0.0, 1.0]}}
    found = summary.summarise(games, given)["tests"]
    assert {(r["against"], r["against_configuration"]) for r in found} == {("dial", "soft")}
    assert ("dial", "hard") in {(r["agent"], r["configuration"]) for r in found}
    control = {**SETTINGS, "agents": ["dial", "script:y", "script:x"], "controls": ["dial"]}
    found = summary.summarise(games, control)["tests"]
    assert [(r["agent"], r["against"]) for r in found] == [("script:x", "script:y")]


def test_duels_are_everybody_against_everybody():
    games = scripts()
    found = summary.summarise(table(games), SETTINGS)["duels"]
    names = [(e["agent"], e["configuration"]) for e in found["entries"]]
    wins, ties = np.array(found["wins"]), np.array(found["ties"])
    i, j = names.index(("script:x", None)), names.index(("dial", "extreme"))
    gap = utilities(games, "script:x") - utilities(games, "dial", {"buyer": 0.0, "seller": 1.0})
    assert (wins[i, j], wins[j, i]) == ((gap > 0).sum(), (gap < 0).sum())
    assert wins[i, j] != wins[j, i]
    assert (ties == ties.T).all()
    np.testing.assert_array_equal(wins + wins.T + ties, 48 * (1 - np.eye(len(names))))


def test_only_games_that_both_played_are_paired():
    """One lacks scenario 3, and the opponent b in the first five scenarios."""
    games = scripts()
    other, scenario = games["agent"] == "script:y", games["scenario_id"]
    kept = ~(other & (((games["opponent"] == "b") & (scenario < 5)) | (scenario == 3)))
    found = summary.summarise(table({k: v[kept] for k, v in games.items()}), SETTINGS)
    row = next(r for r in found["tests"] if r["agent"] == "script:y")
    gap = utilities(games, "script:y") - utilities(games, "script:x")
    whole = gap.mean()
    gap[:, 1, :5], gap[:, :, 3] = np.nan, np.nan
    assert row["difference"] == pytest.approx(np.nanmean(gap), abs=2e-6)
    assert abs(whole - np.nanmean(gap)) > 1e-3
    assert row["wins"] + row["ties"] + row["losses"] == (~np.isnan(gap)).sum()
    means = np.delete(gap, 3, axis=2)
    p = stats.ttest_1samp(np.nanmean(means, axis=(0, 1)), 0).pvalue
    assert row["p"] == pytest.approx(p, abs=2e-6)
    assert abs(p - stats.ttest_1samp(np.nansum(means, axis=(0, 1)), 0).pvalue) > 1e-3
    contrast = next(r for r in found["contrasts"] if (r["against"], r["agent_seat"]) == ("script:y", "buyer"))
    assert contrast["utility_difference"] == pytest.approx(-np.nanmean(gap[0]), abs=2e-6)


def test_holm_by_hand():
    """Holm 1979: the smallest of 4 times 4, the next times 3 … and never below the one before."""
    rows = significance.corrected([{"p": p} for p in (0.01, 0.04, 0.03, 0.005)])
    assert [r["p_holm"] for r in rows] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [r["p"] for r in rows] == [0.01, 0.04, 0.03, 0.005]
    some = significance.corrected([{"p": 0.02}, {"p": float("nan")}, {"p": 0.9}])
    assert [some[0]["p_holm"], some[2]["p_holm"]] == pytest.approx([0.04, 0.9])
    assert np.isnan(some[1]["p_holm"])


def test_p_values_at_the_ends():
    assert significance.p_value(np.zeros(9)) == 1.0
    assert significance.p_value(np.full(9, 0.3)) == 0.0
    assert np.isnan(significance.p_value(np.array([0.3])))


def test_an_agent_against_itself_differs_in_nothing():
    games = scripts()
    mine = games["agent"] == "script:x"
    twin = {k: v[mine].copy() for k, v in games.items()}
    twin["agent"][:] = "script:z"
    twin["rho_achieved"] += 1e-12  # rounding
    found = summary.summarise(table(joined(games, twin)), {**SETTINGS, "agents": ["script:x", "script:z", "script:y"]})
    by = {r["agent"]: r for r in found["tests"] if r["configuration"] is None}
    row = by["script:z"]
    assert (row["difference"], row["low"], row["high"], row["p"], row["p_holm"]) == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert (row["wins"], row["ties"], row["losses"]) == (0, 48, 0)
    assert by["script:y"]["p"] < 1.0
