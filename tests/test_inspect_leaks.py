"""The leak checks of the data card: planted leaks are caught, and what is sound stays quiet."""

import dataclasses
import math

import numpy as np
import pytest

import bargain_env
from bargain_env import rng
from bargain_env.rng import Stream
from experiments.corpus.splits import EVAL, TRAIN
from experiments.inspecting import labels, models, overlaps, presets, reservation
from experiments.inspecting.digests import digest
from experiments.inspecting.games import Games
from experiments.inspecting.moves import Decisions
from experiments.inspecting.sample import SEEN, Sample, at_opening
from experiments.inspecting.verdicts import LEAK, NOTE, OK

GAMES = 900
boosting = pytest.mark.skipif(not models.boosting_is_here(), reason="needs scikit-learn: pip install -e '.[inspect]'")


def noise(column, n=GAMES):
    """``[n]`` in [0, 1), other numbers for every column."""
    return rng.uniform(column, np.arange(n), stream=Stream.POLICY)[:, 0]


def openings(own, other, *, seat=None, rho=None, success=None, ids=None):
    """First decisions of games, one each; seats take turns."""
    n = len(own)
    seat = np.arange(n) % 2 if seat is None else seat
    return Sample(
        ids=[f"game-{k}" for k in range(n)] if ids is None else ids,
        game=np.arange(n),
        row=np.arange(n) * 10,
        turn=np.ones(n, dtype=np.int64),
        seat=seat,
        starter=seat,
        seen=at_opening(own, np.full(n, 200.0), np.full(n, 1500.0), np.full(n, 20.0)),
        own=own,
        other=other,
        success=np.ones(n) if success is None else success,
        rho=noise(91, n) if rho is None else rho,
    )


def of_preset(name, seed=5, n=GAMES):
    games = bargain_env.sample(name, n, seed=seed)
    buyer = np.arange(n) % 2 == 0
    own = np.where(buyer, games.buyer_max, games.seller_min)
    return openings(own, np.where(buyer, games.seller_min, games.buyer_max))


def opening_verdicts(sample, preset):
    kinds = np.full(len(sample.ids), preset, dtype=object)
    return list(reservation.opening_checks(sample, kinds, 0))


# ── R² ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_r2_by_hand():
    y = noise(1, 200)[:, None]
    errors = 0.1 * (noise(2, 200)[:, None] - 0.5)
    fit = models.measured(y, errors, 0)[0]
    assert fit.r2 == pytest.approx(1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum())
    assert fit.low < fit.r2 < fit.high
    assert fit.games == 200
    assert models.measured(y, np.zeros_like(y), 0)[0].r2 == 1.0
    assert models.measured(y, y - y.mean(), 0)[0].r2 == pytest.approx(0.0)
    assert models.measured(y, 2 * (y - y.mean()), 0)[0].r2 == pytest.approx(-3.0)


def test_columns_share_games_and_may_lack_some():
    y, errors = np.stack([noise(1, 200), noise(3, 200)], axis=1), np.full((200, 2), 0.05)
    y[150:, 1] = errors[150:, 1] = np.nan
    whole, part = models.measured(y, errors, 0)
    assert part.games == 150
    alone = models.measured(y[:150, 1:], errors[:150, 1:], 0)[0]
    assert part.r2 == pytest.approx(alone.r2)
    assert part.r2 != whole.r2


def test_where_nothing_differs_there_is_no_r2():
    y = np.full((100, 1), 3.0)
    assert math.isnan(models.measured(y, np.ones((100, 1)), 0)[0].r2)
    few = models.measured(noise(1, 10)[:, None], np.zeros((10, 1)), 0)[0]
    assert math.isnan(few.r2)
    assert few.document() == {"r2": None, "low": None, "high": None, "games": 10}


def test_least_squares_is_exact_and_survives_what_is_missing_or_constant():
    x = np.stack([noise(1), noise(2), np.full(GAMES, 7.0), np.full(GAMES, np.nan)], axis=1)
    y = 3 + 2 * x[:, 0] - x[:, 1]
    predicted = models.predict(models.LINEAR, x[:500], y[:500], x[500:], 500)
    assert np.abs(predicted - y[500:]).max() < 1e-9
    x[::7, 1] = np.nan
    assert np.isfinite(models.predict(models.LINEAR, x[:500], y[:500], x[500:], 500)).all()


def test_games_are_split_as_a_function_of_the_seed():
    one = models.held_out(4000, 0)
    assert abs(one.mean() - models.TEST_SHARE) < 0.03
    assert (one != models.held_out(4000, 1)).any()
    assert (one == models.held_out(4000, 0)).all()


# ── the other side's limit at turn 1 ──────────────────────────────────────────────────────────────────────────────────


def test_paper_is_a_leak_for_both_seats():
    found = opening_verdicts(of_preset("paper"), "paper")
    assert [check.verdict for check in found] == [LEAK, LEAK]
    assert all("1.000" in check.why and check.action for check in found)
    assert [check.figures["seat"] for check in found] == ["buyer", "seller"]


@pytest.mark.parametrize("preset", ["hidden", "no_deal"])
def test_what_a_preset_tells_by_itself_is_no_leak(preset):
    found = opening_verdicts(of_preset(preset, n=4000), preset)
    assert len(found) == 2
    for check in found:
        assert check.verdict == (OK if models.boosting_is_here() else NOTE)
        if preset == "hidden":  # var(buyer_max) / (var(buyer_max) + var(width)) = 600² / (600² + 540²)
            fit = check.figures["models"]["linear"]["data"]
            assert fit["r2"] == pytest.approx(600**2 / (600**2 + 540**2), abs=0.07)
            assert fit["low"] < fit["r2"] < fit["high"]


def test_few_games_raise_no_false_alarm():
    far = 0
    for seed in range(6):
        for check in opening_verdicts(of_preset("hidden", seed=seed, n=400), "hidden"):
            assert check.verdict != LEAK
            fits = check.figures["models"].values()
            far += any(fit["data"]["r2"] - fit["reference"]["r2"] > reservation.SLACK for fit in fits)
    assert far >= 2  # by chance alone: the interval is what keeps quiet


def test_more_than_the_preset_tells_is_a_leak():
    honest = of_preset("hidden", n=2000)
    middle = honest.own + np.where(honest.seat == 0, -330.0, 330.0)
    planted = dataclasses.replace(honest, other=middle + 0.7 * (honest.other - middle))
    found = opening_verdicts(planted, "hidden")
    assert {check.verdict for check in found} == {LEAK}
    assert all("hidden itself gives" in check.why for check in found)


@boosting
def test_a_limit_hidden_in_the_digits_is_found():
    own = np.round(800 + 600 * noise(1), 2)
    hidden_in = openings(own, 200 + 500 * (own % 1) + 40 * noise(2))
    wave = openings(own, 400 + 100 * np.cos(4 * np.pi * (own % 10) / 10) + 40 * noise(2))
    control = openings(own, 200 + 540 * noise(3))
    assert {check.verdict for check in opening_verdicts(hidden_in, None)} == {LEAK}
    assert {check.verdict for check in opening_verdicts(wave, None)} == {
        LEAK
    }  # least squares alone cannot see this one
    assert all("boosting" in check.why for check in opening_verdicts(wave, None))
    assert {check.verdict for check in opening_verdicts(control, None)} == {OK}


def test_of_unknown_origin_a_limit_that_tells_some_is_noted():
    own = np.round(800 + 600 * noise(1), 2)
    found = opening_verdicts(openings(own, own - 300 * noise(2)), None)
    assert {check.verdict for check in found} == {NOTE}
    assert all("prior" in check.action for check in found)
    assert {c.verdict for c in opening_verdicts(openings(own, own - 500 + 5 * noise(2)), None)} == {LEAK}


def test_without_scikit_learn_no_clean_bill(monkeypatch):
    sample = of_preset("hidden")
    monkeypatch.setattr(models, "boosting_is_here", lambda: False)
    found = opening_verdicts(sample, "hidden")
    assert {check.verdict for check in found} == {NOTE}
    assert all("scikit-learn" in check.action for check in found)
    assert list(found[0].figures["models"]) == ["linear"]
    assert {check.verdict for check in opening_verdicts(of_preset("paper"), "paper")} == {LEAK}


def test_too_few_games_are_not_judged():
    found = opening_verdicts(of_preset("paper", n=60), "paper")
    assert {check.verdict for check in found} == {NOTE}
    assert all("too few" in check.why for check in found)


def test_an_opening_seat_sees_nothing_of_the_other():
    one = at_opening(np.array([900.25]), np.array([200.0]), np.array([1500.0]), np.array([20.0]))[0]
    seen = dict(zip(SEEN, one.tolist(), strict=True))
    known = {name: value for name, value in seen.items() if not math.isnan(value)}
    assert known == {
        "turn": 1.0,
        "own limit": 900.25,
        "price_low": 200.0,
        "price_high": 1500.0,
        "max_turns": 20.0,
        "own limit mod 1": 0.25,
        "own limit mod 10": 0.25,
        "own offers": 0.0,
    }


# ── later turns ───────────────────────────────────────────────────────────────────────────────────────────────────────


def talking(tells):
    """Two decisions a game of one seat; before the second the other one has offered ``limit + tells * noise``."""
    n = GAMES
    own, other = np.round(800 + 600 * noise(1), 2), 200 + 540 * noise(2)
    first = openings(own, other, seat=np.zeros(n, dtype=np.intp))
    second = first.seen.copy()
    offer = other + tells * noise(4)
    second[:, SEEN.index("turn")] = 3
    for name in ("standing offer", "offer 1 ago"):
        second[:, SEEN.index(name)] = offer - own
    twice = {
        f.name: np.concatenate([getattr(first, f.name)] * 2) for f in dataclasses.fields(Sample) if f.name != "ids"
    }
    twice["turn"] = np.repeat([1, 3], n)
    twice["seen"] = np.concatenate([first.seen, second])
    return Sample(ids=first.ids, **twice)


def test_offers_disclose_and_that_is_no_leak():
    curves = reservation.by_turn(talking(20.0), 0)
    assert curves["seller"] == []
    before, after = curves["buyer"]
    assert (before["turn"], after["turn"]) == (1, 3)
    for model in models.models():
        assert abs(before[model]["r2"]) < 0.1
        assert after[model]["r2"] > 0.9
        assert after[model]["low"] < after[model]["r2"] < after[model]["high"]
    check = reservation.disclosure_check(curves)
    assert check.verdict == OK
    assert "turn 3" in check.why
    vague = reservation.by_turn(talking(5000.0), 0)["buyer"][1]
    assert vague["linear"]["r2"] < 0.2


# ── labels ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def label_verdicts(sample):
    kinds = np.full(len(sample.ids), "hidden", dtype=object)
    return {check.name: check.verdict for check in labels.label_checks(sample, kinds, 0)}


def labelled(rho, **options):
    return openings(
        np.round(800 + 600 * noise(1), 2), 200 + 540 * noise(2), rho=rho, success=(rho >= 0) * 1.0, **options
    )


def test_labels_that_nothing_tells():
    rho = np.where(noise(7) < 0.3, -1.0, noise(8))
    assert set(label_verdicts(labelled(rho)).values()) == {OK}


def test_sorted_rows_and_telling_ids_are_leaks():
    rho = np.where(noise(7) < 0.3, -1.0, noise(8))
    shuffled = [f"game-{int(k)}" for k in np.argsort(noise(9))]
    in_order = label_verdicts(labelled(np.sort(rho), ids=shuffled))
    assert in_order["label_row_order"] == LEAK
    assert in_order["label_trajectory_id"] == OK
    named = label_verdicts(labelled(rho, ids=[f"game-{int(1000 * r + 1000)}" for r in rho]))
    assert named["label_trajectory_id"] == LEAK
    assert named["label_row_order"] == OK


def test_impasses_at_the_end_are_a_leak():
    found = label_verdicts(labelled(np.where(np.arange(GAMES) > 700, -1.0, noise(8))))
    assert found["label_row_order"] == LEAK


def test_a_label_by_preset_and_starter_is_none_of_the_order():
    rho = np.clip(0.3 * noise(8) + 0.5 * (np.arange(GAMES) % 2), 0, 1)
    assert label_verdicts(labelled(rho))["label_trajectory_id"] == OK  # the starter alternates with the id
    other = labelled(rho, seat=np.zeros(GAMES, dtype=np.intp))
    assert label_verdicts(other)["label_trajectory_id"] == LEAK


def test_success_must_say_what_rho_says():
    rho = np.where(noise(7) < 0.3, -1.0, noise(8))
    sample = labelled(rho)
    wrong = sample.success.copy()
    wrong[3] = 1 - wrong[3]
    assert label_verdicts(dataclasses.replace(sample, success=wrong))["label_success"] == LEAK
    no_label = np.where(np.arange(GAMES) == 3, np.nan, rho)  # a deal without a ZOPA
    assert (
        label_verdicts(dataclasses.replace(sample, rho=no_label, success=(no_label != -1) * 1.0))["label_success"] == OK
    )


def test_offers_at_turn_1_are_a_leak():
    sample = labelled(noise(8))
    assert label_verdicts(sample)["label_future_offers"] == OK
    for name in ("standing offer", "offer 5 ago", "own offers"):
        seen = sample.seen.copy()
        seen[17, SEEN.index(name)] = 5.0
        assert label_verdicts(dataclasses.replace(sample, seen=seen))["label_future_offers"] == LEAK


# ── splits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def counted(n=400, measured=100):
    """Games and decisions of a sound data set, the last ``measured`` of them in eval."""
    split = (np.arange(n) >= n - measured).astype(np.uint8)
    names = [TRAIN, EVAL]
    games = Games(
        split_names=names, scenarios=digest([np.arange(n)]), limits=digest([np.arange(n) + 0.5]), split_of=split
    )
    decisions = Decisions(split_names=names, names=digest([np.arange(n) + 0.25]), played=digest([np.arange(n) + 0.75]),
                          split_of=split)  # fmt: skip
    return games, decisions


def overlap_verdicts(games, decisions):
    return {check.name: check.verdict for check in overlaps.overlap_checks(games, decisions)}


def test_sound_splits_are_quiet():
    assert set(overlap_verdicts(*counted()).values()) == {OK}


def test_a_scenario_in_two_splits_is_a_leak():
    games, decisions = counted()
    games.scenarios[-1] = games.scenarios[0]
    found = overlap_verdicts(games, decisions)
    assert found["split_by_scenario"] == LEAK
    assert {name for name, verdict in found.items() if verdict != OK} == {"split_by_scenario"}
    games, decisions = counted()
    games.scenarios[1] = games.scenarios[0]  # twice in training is no contamination
    assert set(overlap_verdicts(games, decisions).values()) == {OK}


def test_limits_that_recur_by_chance_are_told_from_those_that_were_copied():
    games, decisions = counted()
    games.limits[:] = digest([np.arange(400) % 40])  # few limits are possible: they recur everywhere
    assert overlap_verdicts(games, decisions)["limits_across_splits"] == OK
    games.scenarios[:] = 0  # nobody knows which scenario
    assert overlap_verdicts(games, decisions)["limits_across_splits"] == NOTE
    assert overlap_verdicts(games, decisions)["split_by_scenario"] == NOTE
    games.limits[:] = digest([np.arange(400) % 300])  # every measured game has the limits of one training game
    assert overlap_verdicts(games, decisions)["limits_across_splits"] == LEAK


def test_copied_games_are_a_leak_across_splits_only():
    games, decisions = counted()
    decisions.played[-20:] = decisions.played[:20]
    assert overlap_verdicts(games, decisions)["duplicate_games"] == LEAK
    games, decisions = counted()
    decisions.played[20:40] = decisions.played[:20]
    assert overlap_verdicts(games, decisions)["duplicate_games"] == NOTE
    games, decisions = counted()
    decisions.played[-1] = decisions.played[0]  # one in a hundred happens
    assert overlap_verdicts(games, decisions)["duplicate_games"] == OK
    decisions.played[-2] = decisions.played[1]
    assert overlap_verdicts(games, decisions)["duplicate_games"] == LEAK
    decisions.played[10:16] = decisions.played[20:26]  # as often within training: short games of few limits
    assert overlap_verdicts(games, decisions)["duplicate_games"] == NOTE
    games, decisions = counted()
    decisions.played[:] = digest([np.arange(400) % 200])  # everything twice
    assert overlap_verdicts(games, decisions)["duplicate_games"] == LEAK


def test_an_episode_in_two_splits_or_torn_apart_is_a_leak():
    games, decisions = counted()
    decisions.two_splits = 1
    assert overlap_verdicts(games, decisions)["split_by_episode"] == LEAK
    games, decisions = counted()
    decisions.names[9] = decisions.names[3]
    assert overlap_verdicts(games, decisions)["split_by_episode"] == LEAK


def test_held_out_strategies_may_measure_only():
    games, decisions = counted()
    games.held_out[EVAL, "modelling_counter"] = 7
    assert overlap_verdicts(games, decisions)["held_out_strategies"] == OK
    games.held_out[TRAIN, "modelling_counter"] = 1
    assert overlap_verdicts(games, decisions)["held_out_strategies"] == LEAK


# ── presets ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def collected(order, n=48, seed=3):
    """Ids and limits as experiments.collect makes them of a list of presets."""
    ids = np.arange(n)
    drawn = {name: bargain_env.sample(name, seed=seed, ids=ids) for name in order}
    turn = ids // 2 % len(order)
    limits = [
        np.select([turn == k for k in range(len(order))], [getattr(drawn[name], limit) for name in order])
        for limit in ("buyer_max", "seller_min")
    ]
    return [f"{seed}-abcdef-{k:06d}" for k in ids], *limits


@pytest.mark.parametrize("order", [("paper",), ("hidden",), ("no_deal",), ("hidden", "paper"), ("no_deal", "paper")])
def test_presets_are_told_from_limits(order):
    found = presets.named(*collected(order))
    assert found.tolist() == [order[k // 2 % len(order)] for k in range(48)]


def test_changed_limits_and_foreign_ids_are_of_no_preset():
    ids, buyer_max, seller_min = collected(("hidden",))
    buyer_max[5] += 0.02
    found = presets.named([*ids[:-1], "run_000001"], buyer_max, seller_min)
    assert found[5] == ""
    assert found[-1] is None
    assert set(found[[0, 1, 2, 3, 4, *range(6, 47)]].tolist()) == {"hidden"}
