"""Summaries do not depend on how the episodes come: a table, a stream or a file, in any order, a few cells at a time."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_episodes import crossed, dial_games, joined, table

from bargain_env.errors import InputError
from experiments.reporting import columns, measures, summary

SETTINGS = {"agents": ["dial"], "opponents": ["a", "b"], "seed": 0}


def noisy(games):
    return games["rho_requested"] + 0.1 * np.random.default_rng(0).normal(size=len(games["rho_requested"]))


def mixed():
    dial = dial_games(noisy, rho=(0.2, 0.5, 0.8), scenarios=20)
    g = np.random.default_rng(6)
    dial["rho_achieved"][g.random(len(dial["agent"])) < 0.2] = np.nan
    script = crossed(
        agent=["script:x"],
        agent_seat=["buyer", "seller"],
        rho_requested=[np.nan],
        opponent=["a", "b"],
        scenario_id=range(20),
    )
    script["rho_achieved"] = g.uniform(size=len(script["agent"]))
    return table(joined(dial, script))


def test_a_table_a_stream_and_a_file_give_the_same_summary(tmp_path, monkeypatch):
    episodes, settings = mixed(), SETTINGS | {"agents": ["dial", "script:x"]}
    expected = summary.summarise(episodes, settings)
    assert expected["rating"]
    assert summary.summarise(episodes.to_reader(max_chunksize=7), settings) == expected
    assert summary.summarise(iter(episodes.to_batches(max_chunksize=31)), settings) == expected
    path = tmp_path / "episodes.parquet"
    pq.write_table(episodes, path, row_group_size=50)
    monkeypatch.setattr(columns, "_BATCH", 13)
    assert summary.summarise(path, settings) == expected
    backwards = episodes.take(pa.array(np.arange(len(episodes))[::-1]))
    assert backwards["agent"][0].as_py() == "script:x"
    assert summary.summarise(backwards, settings) == expected
    older = episodes.drop_columns(["fallback_moves"])
    assert summary.summarise(older, settings) == expected


def test_groups_a_few_at_a_time_give_the_same(monkeypatch):
    episodes, pieces, tally = mixed(), [], measures.tally
    monkeypatch.setattr(measures, "tally", lambda columns, groups: pieces.append(len(groups)) or tally(columns, groups))
    expected = summary.summarise(episodes, SETTINGS)
    assert sorted(pieces) == [4, 8, 16]  # outcomes, overall, cells
    pieces.clear()
    monkeypatch.setattr(measures, "_GATHERED", 50)  # two cells have 40 games
    assert summary.summarise(episodes, SETTINGS) == expected
    assert sorted(pieces) == [1] * 8 + [2] * 8 + [4]


def test_a_game_that_is_there_twice_is_named():
    episodes = mixed()
    for twice in (pa.concat_tables([episodes, episodes.slice(45, 1)]), pa.concat_tables([episodes, episodes])):
        with pytest.raises(InputError, match=r"'dial' as buyer at rho 0.[258] against '[ab]' in scenario .* twice"):
            summary.summarise(twice.combine_chunks(), SETTINGS)
        with pytest.raises(InputError, match="twice; give the episodes of one tournament"):
            summary.summarise(twice.to_reader(max_chunksize=40), SETTINGS)


def test_many_scenarios_are_pooled(monkeypatch):
    """Their number changes no figure; intervals of 60 pools of 4 are about as wide as those of 240 scenarios."""
    games = table(dial_games(noisy, scenarios=240))
    whole = summary.summarise(games, SETTINGS)["overall"]
    monkeypatch.setattr(columns, "POOLS", 60)
    pooled = summary.summarise(games, SETTINGS)["overall"]
    assert pooled != whole
    for name in ("n", "utility", "rho_achieved", "agreement_rate"):
        assert [r[name] for r in pooled] == [r[name] for r in whole]
    widths = [np.mean([r["utility_high"] - r["utility_low"] for r in rows]) for rows in (whole, pooled)]
    assert widths[1] == pytest.approx(widths[0], rel=0.12)
    monkeypatch.setattr(columns, "POOLS", 7)
    read = columns.Columns.of(games)
    parts = read.pooled(np.ones(240))
    assert len(parts) == 7
    assert (parts.sum(), parts.min(), parts.max()) == (240, 34, 35)
