"""Splits: by episode, in proportion within each outcome and each pair of strategies, whole strategies held out."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bargain_env.errors import InputError
from experiments import collect, prepare
from experiments.corpus.splits import NAMES, Splits, base_name

EVAL, TEST = NAMES.index("eval"), NAMES.index("test")


def assigned(ids, rho, players=None, pieces=1, seed=0, eval_share=0.02, test_share=0.03, holdout=()):
    splits = Splits(seed, eval_share, test_share, holdout)
    players = np.full((len(ids), 2), "a", dtype=object) if players is None else players
    for part in np.array_split(np.arange(len(ids)), pieces):
        splits.add(pa.chunked_array([pa.array(ids[part], pa.string())]), rho[part], players[part])
    return splits.assign()


@pytest.fixture(scope="module")
def games():
    """Ten thousand episodes between five strategies, a quarter of them impasses."""
    n = 10_000
    ids = np.array([f"e{i}" for i in range(n)], dtype=object)
    rho = np.where(np.arange(n) % 4 == 0, -1.0, (np.arange(n) % 97) / 96)
    drawn = np.random.default_rng(0).integers(0, 5, size=(n, 2))
    return ids, rho, np.array(list("abcde"), dtype=object)[drawn]


def test_every_outcome_in_proportion(games):
    ids, rho, players = games
    split = assigned(ids, rho, players)
    assert np.bincount(split).tolist() == [9500, 200, 300]
    for low, high in [(-1, -1), *((k / 10, k / 10 + 0.0999 + (k == 9)) for k in range(10))]:
        stratum = (rho >= low) & (rho <= high)
        assert abs((split[stratum] == EVAL).sum() - 0.02 * stratum.sum()) <= 1.01
        assert abs((split[stratum] == TEST).sum() - 0.03 * stratum.sum()) <= 1.1


def test_every_pair_in_proportion(games):
    """Of about 400 games a pair, 8 evaluate: within an outcome at most one too few or too many; by chance 3 would be."""
    ids, rho, players = games

    def spread(shown):
        split = assigned(ids, rho, shown)
        counts = [
            (split[(players[:, 0] == a) & (players[:, 1] == b) & (rho == -1)] == EVAL).sum()
            for a in "abcde"
            for b in "abcde"
        ]
        return max(counts) - min(counts)

    assert spread(players) <= 2 < spread(np.full_like(players, "same"))


def test_nothing_but_the_set_of_episodes_and_the_seed_matters(games):
    ids, rho, players = games
    split = assigned(ids, rho, players)
    assert (assigned(ids, rho, players, seed=1) != split).any()
    assert (assigned(ids, rho, players[:, ::-1]) != split).any()
    assert (assigned(ids[::-1], rho[::-1], players[::-1])[::-1] == split).all()
    order = np.random.default_rng(1).permutation(len(ids))
    for pieces in (1, 7, 400):
        assert (assigned(ids[order], rho[order], players[order], pieces) == split[order]).all()


def test_drawn_members_count_as_their_family():
    assert base_name("exponential(beta=0.5, kappa=0.1)") == "exponential"
    n = 1000
    ids, rho = np.array([f"e{i}" for i in range(n)], dtype=object), np.full(n, 0.5)
    drawn = np.array(
        [[f"bold(beta={i})", "fair"] if i % 2 else [f"meek(beta={i})", "fair"] for i in range(n)], dtype=object
    )
    split = assigned(ids, rho, drawn, eval_share=0.1, test_share=0.1)
    assert [(split[k::2] == EVAL).sum() for k in (0, 1)] == [50, 50]
    assert [(split[k::2] == TEST).sum() for k in (0, 1)] == [50, 50]


def test_a_strategy_that_is_held_out_is_all_for_the_test(games):
    ids, rho, players = games
    split = assigned(ids, rho, players, holdout=("b", "d"))
    held = np.isin(players, ["b", "d"]).any(axis=1)
    assert 0.5 < held.mean() < 0.8
    assert set(split[held]) == {TEST}
    rest = (~held).sum()
    assert (split[~held] == EVAL).sum() == np.ceil(0.02 * rest)
    assert abs((split[~held] == TEST).sum() - 0.03 * rest) <= 1
    without = assigned(ids[~held], rho[~held], players[~held])
    assert (split[~held] == without).all()


def test_names_that_are_not_there(games):
    ids, rho, players = games
    with pytest.raises(InputError, match="unknown strategy in --holdout 'boulwar'; known: a, b, c, d, e"):
        assigned(ids, rho, players, holdout=("boulwar",))
    with pytest.raises(InputError, match="leaves no episode to train on"):
        assigned(ids, rho, players, holdout=tuple("abcde"))
    unknown = players.copy()
    unknown[500:510, 1] = None
    unknown[500:510, 0] = "a"
    assigned(ids, rho, unknown)
    with pytest.raises(InputError, match=r"--holdout: 'e500' does not say who played"):
        assigned(ids, rho, unknown, holdout=("b",))


def test_holdout_of_the_command(tmp_path):
    collect.run(collect.Settings(episodes=400, seed=3, out=tmp_path / "raw", quiet=True))
    ready = {"input": tmp_path / "raw", "quiet": True}
    manifest = prepare.run(prepare.Settings(out=tmp_path / "all", **ready))
    assert manifest["splits"]["test"] < 20
    prepare.run(prepare.Settings(out=tmp_path / "held", holdout="fair, hardliner", **ready))
    episodes = pq.read_table(tmp_path / "held" / "episodes.parquet").to_pylist()
    held = [e for e in episodes if {"fair", "hardliner"} & {e["buyer_strategy"], e["seller_strategy"]}]
    assert len(held) > 10
    assert {e["split"] for e in held} == {"test"}
    assert {e["split"] for e in episodes} == {"train", "eval", "test"}
    steps = pq.read_table(tmp_path / "held" / "steps.parquet", columns=["strategy", "opponent_strategy", "split"])
    for name in ("strategy", "opponent_strategy"):
        assert not {"fair", "hardliner"} & {s[name] for s in steps.to_pylist() if s["split"] != "test"}
    with pytest.raises(InputError, match="unknown strategy in --holdout 'fare'; did you mean 'fair'"):
        prepare.run(prepare.Settings(out=tmp_path / "none", holdout="fare", **ready))
    assert not (tmp_path / "none").exists()
