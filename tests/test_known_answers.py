"""Summaries of tournaments whose figures are known beforehand: dials, mirrors, surplus, outcomes."""

import itertools

import numpy as np
import pytest
from made_episodes import crossed, dial_games, joined, table

from bargain_env import theory
from experiments.reporting import summary

SETTINGS = {"agents": ["dial"], "opponents": ["a", "b"], "seed": 0}
RHO = (0.0, 0.25, 0.5, 0.75, 1.0)


def calibrated(games, seat="buyer", **settings):
    return summary.summarise(table(games), SETTINGS | settings)["calibration"][seat]


def noisy(games, scale=0.1, seed=0):
    return games["rho_requested"] + scale * np.random.default_rng(seed).normal(size=len(games["rho_requested"]))


# ── dials ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_perfect_dial():
    found = calibrated(dial_games(lambda games: games["rho_requested"]))
    for name, value in {"mae": 0, "mae_means": 0, "bias": 0, "slope": 1, "intercept": 0, "spearman": 1}.items():
        assert [found[name], found[f"{name}_low"], found[f"{name}_high"]] == pytest.approx([value] * 3, abs=1e-6), name
    assert found["spearman_games"] == 1.0
    assert (found["violations"], found["violations_clear"], found["largest_fall"]) == (0, 0, 0.0)
    assert found["achieved"] == list(RHO)
    assert (found["agreement_rate_all"], found["agreement_rate_all_high"]) == (1.0, 1.0)
    other = calibrated(dial_games(noisy))
    assert other["mae"] == pytest.approx(0.1 * np.sqrt(2 / np.pi), abs=0.02)
    assert other["mae_low"] < other["mae"] < other["mae_high"]


def test_a_dial_that_does_nothing():
    """It settles somewhere, whatever is asked."""
    flat = calibrated(dial_games(lambda games: np.full(len(games["agent"]), 0.4)))
    assert [flat[name] for name in ("slope", "slope_low", "slope_high")] == pytest.approx([0] * 3, abs=1e-6)
    assert (flat["spearman"], flat["spearman_games"]) == (None, None)
    assert (flat["intercept"], flat["bias"]) == pytest.approx((0.4, -0.1))
    assert flat["mae"] == pytest.approx(np.abs(np.array(RHO) - 0.4).mean())
    assert (flat["violations"], flat["largest_fall"]) == (0, 0.0)


def test_a_dial_the_wrong_way_round():
    found = calibrated(dial_games(lambda games: 1.0 - games["rho_requested"]))
    assert (found["slope"], found["intercept"], found["spearman"], found["bias"]) == pytest.approx((-1, 1, -1, 0))
    assert (found["violations"], found["violations_clear"]) == (4, 4)
    assert [found[f"largest_fall{b}"] for b in ("", "_low", "_high")] == pytest.approx([0.25] * 3)


def test_falls_that_are_noise_and_falls_that_are_not():
    """Between .25 and .5 the means fall in every scenario, between .75 and 1 by the luck of a few."""
    level = dict(zip(RHO, (0.1, 0.5, 0.3, 0.7, 0.69), strict=True))

    def settle(games):
        luck = 0.1 * np.random.default_rng(1).normal(size=len(games["agent"]))
        return np.array([level[rho] for rho in games["rho_requested"]]) + luck

    found = calibrated(dial_games(settle))
    assert (found["violations"], found["violations_clear"]) == (2, 1)
    achieved = np.array(found["achieved"])
    assert found["largest_fall"] == pytest.approx(-np.diff(achieved).min(), abs=2e-6)
    assert 0.1 < found["largest_fall_low"] < found["largest_fall"] < found["largest_fall_high"] < 0.3


def test_bias_and_line_by_hand():
    games = dial_games(noisy)
    games["rho_achieved"][games["rho_requested"] > 0.9] += 0.2
    games["rho_achieved"][::3] = np.nan
    found = calibrated(games, "seller")
    mine = (games["agent_seat"] == "seller") & ~np.isnan(games["rho_achieved"])
    asked, got = games["rho_requested"][mine], games["rho_achieved"][mine]
    slope, intercept = np.polyfit(asked, got, 1)
    assert (found["slope"], found["intercept"]) == pytest.approx((slope, intercept), abs=2e-6)
    assert found["bias"] == pytest.approx((got - asked).mean(), abs=2e-6)
    assert found["bias_low"] < found["bias"] < found["bias_high"]
    assert found["agreement_rate_all"] == pytest.approx(2 / 3, abs=0.01)
    assert found["bias"] > 0.02


def test_impasses_and_the_request_for_one_are_no_part_of_the_fit():
    games = dial_games(noisy, rho=(-1.0, *RHO))
    asked = games["rho_requested"]
    games["rho_achieved"][asked < 0] = np.where(np.arange((asked < 0).sum()) % 2, np.nan, 0.9)
    found, plain = calibrated(games), calibrated({k: v[asked >= 0] for k, v in games.items()})
    assert found["rho"] == [-1.0, *RHO]
    assert len(found["agreement_rate_low"]) == 6
    assert found["agreement_rate"][0] == pytest.approx(0.5)
    same = ("mae", "slope", "slope_low", "bias", "spearman_games", "violations", "agreement_rate_all")
    assert {k: found[k] for k in same} == {k: plain[k] for k in same}


def test_a_deal_without_a_zopa_is_an_agreement_and_settles_nowhere():
    games = dial_games(noisy, rho=(0.2, 0.8))
    plain = calibrated(games)
    without = games["scenario_id"] < 6
    games |= {"width": np.where(without, -50.0, 500.0), "deal": games["scenario_id"] < 9}
    games["rho_achieved"][(games["scenario_id"] < 6) | (games["scenario_id"] >= 9)] = np.nan
    found = calibrated(games)
    assert (found["deals"], plain["deals"]) == ([6, 6], [60, 60])
    assert found["agreement_rate"] == pytest.approx([0.3, 0.3])
    assert found["agreement_rate_all"] == pytest.approx(0.3)


def test_a_single_request_has_no_line():
    found = calibrated(dial_games(noisy, rho=(0.3,)))
    assert [found[k] for k in ("slope", "slope_low", "intercept", "spearman", "violations", "largest_fall")] == [
        None
    ] * 6
    assert found["mae"] > 0


def test_splits_apart():
    games = dial_games(lambda games: np.where(games["opponent"] == "a", games["rho_requested"], 0.5))
    games["opponent_split"] = np.where(games["opponent"] == "a", "train", "held_out")
    found = summary.summarise(table(games), SETTINGS)
    assert list(found["calibration_by_split"]) == ["train", "held_out"]
    slopes = {split: of["dial"]["buyer"]["slope"] for split, of in found["calibration_by_split"].items()}
    assert slopes == pytest.approx({"train": 1.0, "held_out": 0.0}, abs=1e-6)
    assert found["calibration"]["buyer"]["slope"] == pytest.approx(0.5)
    games["opponent_split"][:] = "held_out"
    found = summary.summarise(table(games), SETTINGS)["calibration_by_split"]
    assert found == {"held_out": {"dial": summary.summarise(table(games), SETTINGS)["calibration_by_agent"]["dial"]}}


# ── mirror ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mirrored(games):
    other = {"buyer": "seller", "seller": "buyer"}
    return games | {
        "agent_seat": np.array([other[seat] for seat in games["agent_seat"]]),
        "rho_requested": 1.0 - games["rho_requested"],
        "rho_achieved": 1.0 - games["rho_achieved"],
    }


def test_a_mirrored_tournament_gives_mirrored_numbers():
    """Seats are swapped and ρ becomes 1 - ρ: every price is reflected in the middle of the ZOPA."""
    g = np.random.default_rng(4)
    games = joined(*(dial_games(lambda games, s=s: noisy(games, seed=s) ** 2, agent=a) for s, a in enumerate("dc")))
    games["rho_achieved"][g.random(len(games["agent"])) < 0.2] = np.nan
    settings = SETTINGS | {"agents": ["d", "c"]}
    here, there = (summary.summarise(table(x), settings) for x in (games, mirrored(games)))
    swap, moved = {"buyer": "seller", "seller": "buyer"}, 0
    cells = {(c["agent"], c["agent_seat"], c["rho_requested"], c["opponent"]): c for c in there["cells"]}
    assert len(cells) == len(here["cells"]) == 40
    for cell in here["cells"]:
        twin = cells[cell["agent"], swap[cell["agent_seat"]], 1 - cell["rho_requested"], cell["opponent"]]
        for name in ("utility", "utility_low", "utility_high", "agreement_rate_low", "surplus_share", "nash_distance"):
            assert cell[name] == pytest.approx(twin[name], abs=2e-6), name
        assert cell["rho_achieved"] == pytest.approx(1 - twin["rho_achieved"], abs=2e-6)
        assert cell["rho_achieved_low"] == pytest.approx(1 - twin["rho_achieved_high"], abs=2e-6)
        moved += cell["rho_achieved"] != twin["rho_achieved"]
    assert moved > 30
    for agent, seat in itertools.product("dc", swap):
        a, b = (found["calibration_by_agent"][agent][s] for found, s in ((here, seat), (there, swap[seat])))
        for name in ("mae", "slope", "slope_low", "slope_high", "spearman", "violations", "agreement_rate_all"):
            assert a[name] == pytest.approx(b[name], abs=2e-6), name
        assert (a["bias"], a["bias_low"]) == pytest.approx((-b["bias"], -b["bias_high"]), abs=2e-6)
        assert a["intercept"] == pytest.approx(1 - b["slope"] - b["intercept"], abs=5e-6)
        assert abs(a["bias"]) > 0.01
    assert len(here["rating"]) == 4  # standard is .2/.8, which this grid lacks: extreme and neutral of each
    names = {"extreme": "extreme", "neutral": "neutral"}
    for section, figure in (("rating", "rating"), ("rating", "low"), ("ranking", "utility")):
        values = [{(r["agent"], names[r["configuration"]]): r[figure] for r in f[section]} for f in (here, there)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


# ── what both sides make of a game ────────────────────────────────────────────────────────────────────────────────────


def test_surplus_efficiency_and_distance_to_nash_by_hand():
    games = crossed(agent=["script:x"], agent_seat=["buyer"], opponent=["a"], scenario_id=range(4))
    games |= {
        "width": np.array([500.0, 200.0, 100.0, -50.0]),
        "rho_achieved": np.array([0.2, 0.7, np.nan, np.nan]),
        "deal": np.array([True, True, False, True]),  # the last one is nobody's surplus
        "utility": np.array([0.72, 0.27, 0.0, -0.1]),  # discounted by .9
        "opponent_utility": np.array([0.18, 0.63, 0.0, 0.2]),
    }
    row = summary.summarise(table(games), {"agents": ["script:x"]})["cells"][0]
    assert row["surplus_share"] == pytest.approx((0.8 + 0.3) / 2)
    assert row["efficiency"] == pytest.approx((0.9 + 0.9 + 0.0) / 3, abs=1e-6)
    nash = theory.nash(np.array([900.0, 600.0]), np.array([400.0, 400.0]))
    prices = np.array([400 + 0.2 * 500, 400 + 0.7 * 200])
    assert row["nash_distance"] == pytest.approx(np.mean(np.abs(prices - nash) / [500, 200]), abs=1e-6)
    assert list(row)[-3:] == ["surplus_share", "efficiency", "nash_distance"]
    assert row["utility"] == pytest.approx((0.72 + 0.27 - 0.1) / 4, abs=1e-6)
    games["width"], games["rho_achieved"] = np.full(4, -50.0), np.full(4, np.nan)
    none = summary.summarise(table(games), {"agents": ["script:x"]})["cells"][0]
    assert [none[k] for k in ("surplus_share", "efficiency", "nash_distance")] == [None] * 3


def test_outcomes_by_cause():
    games = crossed(agent=["script:x"], agent_seat=["buyer", "seller"], opponent=["a"], scenario_id=range(6))
    seller = games["agent_seat"] == "seller"
    games |= {
        "width": np.array([100.0, 100, 100, -1, -1, -1] * 2),
        "rho_achieved": np.array([0.5, 0.5, np.nan, np.nan, np.nan, np.nan] * 2),
        "deal": np.array([True, True, False, False, False, True] * 2),
        "invalid_moves": np.where(seller, 0, [3, 0, 0, 1, 0, 0] * 2),
        "guard_moves": np.where(seller, [0, 2, 2, 2, 0, 0] * 2, 0),
        "fallback_moves": np.where(seller, [0, 1, 0, 0, 0, 5] * 2, 0),
    }
    found = summary.summarise(table(games), {"agents": ["script:x"]})["outcomes"]
    none = dict.fromkeys(("invalid_games", "guard_games", "fallback_games"), 0)
    ends = {"n": 6, "deal": 2, "impasse": 1, "no_zopa": 2, "no_zopa_deal": 1}
    assert found == [
        {"agent": "script:x", "agent_seat": "buyer", **ends, **none, "invalid_games": 2, "troubled_games": 2},
        {
            "agent": "script:x",
            "agent_seat": "seller",
            **ends,
            **none,
            "guard_games": 3,
            "fallback_games": 2,
            "troubled_games": 4,  # one of them for two reasons
        },
    ]


def test_configurations_that_the_tournament_was_given():
    games = dial_games(noisy)
    named = {"hard": [0.0, 1.0], "odd": [0.25, 0.5], "absent": [0.1, 0.9]}
    found = summary.summarise(table(games), SETTINGS | {"configurations": named})
    assert list(found["configurations"]["dial"]) == ["hard", "odd"]
    assert {(r["configuration"], r["seats"]["buyer"]["rho_requested"]) for r in found["ranking"]} == {
        ("hard", 0.0),
        ("odd", 0.25),
    }
    usual = summary.summarise(table(games), SETTINGS)
    assert list(usual["configurations"]["dial"]) == ["extreme", "neutral"]
