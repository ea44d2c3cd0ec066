"""Two dials are compared in the same draws of scenarios."""

import numpy as np
import pytest
from made_episodes import crossed, table

from experiments.reporting import summary

GRID = [0.0, 0.25, 0.5, 0.75, 1.0]


def dials(g, scenarios=30, slopes=(("one", 1.0), ("two", 0.4), ("three", 1.0)), requests=GRID):
    """Each settles at ``.5 + slope (ρ - .5)``, moved by what its scenario alone decides; nobody settles at -1."""
    games = crossed(
        agent=[name for name, _ in slopes], agent_seat=["buyer"], rho_requested=requests, opponent=["a"],
        scenario_id=range(scenarios),
    )  # fmt: skip
    away = g.normal(0, 0.08, scenarios)[games["scenario_id"]]
    slope = np.array([dict(slopes)[name] for name in games["agent"].tolist()])
    rho = 0.5 + slope * (games["rho_requested"] - 0.5) + away
    deal = games["rho_requested"] >= 0
    return games | {"rho_achieved": np.where(deal, rho, np.nan), "deal": deal, "width": np.full(len(away), 100.0)}


def contrasts(games, **settings):
    found = summary.summarise(table(games), {"agents": ["one", "two", "three"], **settings})["dial_contrasts"]
    return {row["agent"]: row for row in found}


def test_what_scenarios_share_drops_out():
    games = dials(np.random.default_rng(0))
    found = contrasts(games)
    assert list(found) == ["two", "three"]
    two, three = found["two"], found["three"]
    assert two["against"] == three["against"] == "one"
    assert two["slope_difference"] == pytest.approx(-0.6, abs=1e-6)
    assert (two["slope_low"], two["slope_high"]) == pytest.approx((-0.6, -0.6), abs=1e-6)  # paired: no spread is left
    assert two["mae_difference"] > 0.05
    assert two["mae_low"] < two["mae_difference"] < two["mae_high"]
    assert three["slope_difference"] == three["mae_difference"] == 0
    alone = summary.summarise(table(games), {"agents": ["one", "two", "three"]})["calibration_by_agent"]["two"]["buyer"]
    assert alone["mae_high"] - alone["mae_low"] > 0.001


def test_the_first_is_the_first_under_test_and_controls_are_compared():
    games = dials(np.random.default_rng(1))
    found = contrasts(games, controls=["one"])
    assert {row["against"] for row in found.values()} == {"two"}
    assert found["one"]["slope_difference"] == pytest.approx(0.6, abs=1e-6)


def test_requests_for_an_impasse_do_not_enter():
    g = np.random.default_rng(2)
    without, with_it = dials(g), dials(np.random.default_rng(2), requests=[-1.0, *GRID])
    one, other = contrasts(without), contrasts(with_it)
    assert one["two"] == other["two"]
    gaps = [
        summary.summarise(table(games), {"agents": ["one", "two", "three"]})["contrasts"]
        for games in (without, with_it)
    ]
    assert gaps[0] == gaps[1]


def test_dials_that_were_asked_for_other_requests_are_not_compared():
    games = dials(np.random.default_rng(3))
    kept = (games["agent"] != "two") | (games["rho_requested"] != 0.5)
    found = contrasts({name: values[kept] for name, values in games.items()})
    assert list(found) == ["three"]
