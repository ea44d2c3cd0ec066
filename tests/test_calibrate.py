"""Calibrating a dial: isotonic fits and their inverses, players whose distortion is known, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tournament_players import Dial as FakeDial
from tournament_players import Taker

import agents
from agents.janus import JanusAgent
from agents.janus_models import clear_models
from bargain_env import PRESETS, Seat
from bargain_env.errors import InputError
from experiments import calibrate, isotonic, played, tournament
from experiments.match import arena
from experiments.match.contestants import Contestant
from experiments.reporting.calibration import calibration
from experiments.reporting.columns import Columns
from hyperlora.dial import Dial, Knots
from hyperlora.dial_files import save_dial

GRID = np.array([k / 20 for k in range(21)])
SAME = np.ones(21)


# ── the fit ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dial_that_is_right_is_left_as_it_is():
    knots = isotonic.fit(GRID, GRID, SAME)
    assert (knots.asked, knots.internal) == (tuple(GRID), tuple(GRID))


def test_a_compressed_dial_is_stretched():
    knots = isotonic.fit(GRID, 0.3 + 0.4 * GRID, SAME)
    assert knots(np.array([0.4, 0.5, 0.6])) == pytest.approx([0.25, 0.5, 0.75], abs=1e-6)
    beyond = np.array([0.0, 0.1, 0.29, 0.71, 1.0])
    assert knots(beyond) == pytest.approx([0.0, 0.01, 0.029, 0.971, 1.0]), "out of reach: the end, in the order asked"


def test_what_falls_is_pooled_by_its_weight_and_answered_from_the_middle():
    internal, achieved = np.array([0.0, 0.25, 0.5, 0.75, 1.0]), np.array([0.1, 0.5, 0.3, 0.5, 0.9])
    alike = isotonic.fit(internal, achieved, np.ones(5))
    assert alike(0.4) == pytest.approx(0.375)
    heavy = isotonic.fit(internal, achieved, np.array([1.0, 3.0, 1.0, 1.0, 1.0]))
    assert 0.45 in heavy.asked
    assert heavy(0.45) == pytest.approx(0.375)
    assert (np.diff(alike(np.linspace(0, 1, 101))) > 0).all(), "who asks for more is given more"


def test_a_dead_dial_stays_in_the_middle():
    knots = isotonic.fit(GRID, np.full(21, 0.4), SAME)
    assert knots(0.4) == pytest.approx(0.5)


def test_levels_beyond_the_range_are_cut_at_it():
    knots = isotonic.fit(np.array([0.0, 0.5, 1.0]), np.array([-0.5, 0.5, 1.5]), np.ones(3))
    assert knots(np.array([0.0, 0.5, 1.0])) == pytest.approx([0.25, 0.5, 0.75])


def test_settings_without_deals_are_no_knots():
    deals = np.where(GRID < 0.2, 0.0, 1.0)
    knots = isotonic.fit(GRID, np.where(deals > 0, GRID, np.nan), deals)
    assert knots(0.0) == 0.2
    assert knots(0.1) == pytest.approx(0.208), "a tenth of the way, of a dial from .2 to 1"
    assert isotonic.fit(GRID, GRID, SAME)(0.1) == 0.1


def test_the_floor_keeps_the_dial_where_deals_happen():
    agreement = np.where((GRID < 0.2) | (GRID == 0.9), 0.5, 0.99)
    free, kept = (isotonic.fit(GRID, GRID, SAME, agreement, least) for least in (0.0, 0.97))
    fine = np.linspace(0, 1, 1001)
    assert (free(fine).min(), free(fine).max()) == (0.0, 1.0)
    assert (kept(fine).min(), kept(fine).max()) == (0.2, 0.85)
    with pytest.raises(InputError, match=r"fewer than two .* agreement of 0\.995"):
        isotonic.fit(GRID, GRID, SAME, agreement, 0.995)
    with pytest.raises(InputError, match=r"fewer than two .* deal"):
        isotonic.fit(GRID, np.full(21, np.nan), np.zeros(21))


# ── players whose distortion is known ─────────────────────────────────────────────────────────────────────────────────

DISTORTION = {Seat.BUYER: lambda rho: 0.2 + 0.6 * rho**2, Seat.SELLER: lambda rho: 0.9 * np.sqrt(rho)}


def distorted(dial=None):
    """Settles at a distortion of what its dial is set to, which is another one in each seat."""

    class Distorted(FakeDial):
        def reset(self, games):
            asked = self.rho
            self.rho = DISTORTION[games.seat](asked if dial is None else dial.of(games.seat)(asked))
            super().reset(games)

    return Contestant("dial", takes_rho=True, build=lambda rho, _: Distorted(rho))


def episodes(player, rho, games=6):
    plan = arena.Plan(("easy",), arena.same_grid(rho), games, tuple(Seat), PRESETS["paper"])
    return Columns.of(arena.run_tournament([player], plan))


@pytest.fixture
def easy(monkeypatch):
    monkeypatch.setattr(agents.registry, "_REGISTRY", dict(agents.registry._REGISTRY))
    monkeypatch.setattr(Taker, "seen", [])
    agents.register("easy", Taker, family="taker")


def test_after_calibration_games_settle_at_what_was_asked(easy):
    dial = calibrate.fitted({"paper": episodes(distorted(), GRID.tolist())}, {"by": "test"})
    assert not dial.scenarios, "one preset needs one map a seat"
    assert dial.fitted == {"by": "test"}
    asked = np.array([0.25, 0.33, 0.4, 0.5, 0.61, 0.7, 0.75])  # nearer to the edge of reach, .8, the least slope counts
    raw, mapped = (episodes(player, asked.tolist()) for player in (distorted(), distorted(dial)))
    for seat in Seat:
        curves = []
        for columns in (raw, mapped):
            mine = np.array([i for i, c in enumerate(columns.cells) if c.agent_seat == seat.label])
            curves.append(calibration(columns, mine, seed=0)["achieved"])
        assert np.abs(curves[0] - asked).max() > 0.1
        assert np.abs(curves[1] - asked).max() < 0.01, "the line between two settings 0.05 apart"
        assert (np.diff(dial.of(seat)(np.linspace(0, 1, 501))) > 0).all()
    assert np.abs(dial.buyer(asked) - dial.seller(asked)).max() > 0.1, "seats apart"


def test_presets_count_alike_and_have_maps_of_their_own(easy):
    once, other = (episodes(player, GRID.tolist()) for player in (distorted(), Contestant("dial", True, _plain)))
    alone = calibrate.fitted({"paper": once}, {})
    twice = calibrate.fitted({"paper": once, "hidden": once}, {})
    assert (twice.buyer, twice.seller) == (alone.buyer, alone.seller)
    both = calibrate.fitted({"paper": once, "hidden": other}, {})
    assert both.scenarios == {"paper": alone, "hidden": calibrate.fitted({"hidden": other}, {})}
    for seat in Seat:
        ends = sorted(float(dial.of(seat)(0.4)) for dial in both.scenarios.values())
        assert ends[0] + 0.02 < both.of(seat, "no_deal")(0.4) < ends[1] - 0.02, "the map for all lies between"


def _plain(rho, _):
    return FakeDial(rho)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def world(tmp_path, monkeypatch):
    clear_models()
    monkeypatch.setattr("experiments.match.opponents.VALIDATION_OPPONENTS", ("fair(opening=0.5)", "micro(step=30.0)"))
    yield save_dial("janus-nano", None, tmp_path / "made")
    clear_models()


def settings(world, tmp_path, **options):
    chosen = {"rho": "0,0.5,1", "games": 2, "check_games": 0, "threads": 1, "quiet": True, "work": tmp_path / "work"}
    return calibrate.Settings(str(world), **{**chosen, **options})


def test_the_command_writes_a_map_into_a_copy(world, tmp_path, monkeypatch, capsys):
    before = (world / "adapter" / "adapter_config.json").read_bytes()
    monkeypatch.setattr(calibrate, "CHECKED", "0.2,0.8")
    found = calibrate.run(settings(world, tmp_path, out=tmp_path / "copy", check_games=2, quiet=False))
    shown = capsys.readouterr().out
    assert shown.count("set to") == shown.count("calibrated MAE of means") == 2, "each seat"
    assert f"python -m experiments.dial --agents janus:{tmp_path / 'copy'}" in shown
    assert (world / "adapter" / "adapter_config.json").read_bytes() == before
    written = json.loads((tmp_path / "copy" / "adapter" / "adapter_config.json").read_text())["dial"]
    assert written == found["dial"]
    assert written["fitted"] == {
        "method": "isotonic regression", "opponents": "validation", "scenario": "paper", "games": 2, "seed": calibrate.SEED,
        "rho": "0,0.5,1", "least_agreement": 0.0, "decode": "median", "guard": "monotone",
    }  # fmt: skip
    assert JanusAgent(tmp_path / "copy").dial == Dial.from_config({"dial": written})
    assert {seat: found["check"]["raw"]["paper"][seat]["rho"] for seat in ("buyer", "seller")} == {
        "buyer": [0.2, 0.8], "seller": [0.2, 0.8],
    }  # fmt: skip
    played_ = {
        part: json.loads((tmp_path / "work" / f"{part}-paper" / "summary.json").read_text())["settings"]
        for part in ("fit", "raw", "calibrated")
    }
    assert {part: (s["raw_dial"], s["seed"] - calibrate.SEED) for part, s in played_.items()} == {
        "fit": (True, 0), "raw": (True, 1), "calibrated": (False, 1),
    }  # fmt: skip
    assert all(s["opponents"] == ["fair(opening=0.5)", "micro(step=30.0)"] for s in played_.values())


@pytest.mark.slow
def test_in_place_and_what_was_played_is_not_played_again(world, tmp_path, monkeypatch):
    calibrate.run(settings(world, tmp_path, out=tmp_path / "copy"))
    times = []
    run = tournament.run
    monkeypatch.setattr(tournament, "run", lambda s: times.append(s) or run(s))
    calibrate.run(settings(world, tmp_path))
    assert not times, "found finished"
    assert JanusAgent(world).dial == JanusAgent(tmp_path / "copy").dial
    calibrate.run(settings(world, tmp_path, games=3, out=tmp_path / "copy"))
    assert len(times) == 1, "other games"
    chosen = times[0]
    assert played.episodes(chosen) == chosen.out / "episodes.parquet"
    assert len(times) == 1
    (chosen.out / played.STAMP).write_text("{")
    played.episodes(chosen)
    assert len(times) == 2, "half a stamp is no proof"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter": "janus-nano"}, "give --out DIR"),
        ({"adapter": "nowhere"}, "no adapter in"),
        ({"scenario": "papper"}, "did you mean 'paper'"),
        ({"rho": "0.5"}, "at least two values"),
        ({"rho": "-1,0.5,0.7"}, "at least two values in"),
        ({"least_agreement": 1.5}, "must lie in"),
        ({"check_games": -1}, "must be 0 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(world, tmp_path, options, message, monkeypatch):
    monkeypatch.setattr(tournament, "run", None)
    chosen = settings(world, tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        calibrate.run(type(chosen)(**{**vars(chosen), **options}))
    assert "\n" not in str(caught.value)


def test_knots_of_the_fit_are_short_enough_to_read():
    knots = isotonic.fit(GRID, np.sqrt(GRID), SAME)
    assert isinstance(knots, Knots)
    assert all(len(repr(value)) <= 8 for value in (*knots.asked, *knots.internal))
