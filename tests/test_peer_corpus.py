"""A corpus that nobody here wrote: two runs merged under the same ids, found and taken apart."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bargain_env.errors import InputError
from experiments import prepare

CORPUS = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "peer_corpus"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CORPUS.exists(), reason=f"the peer corpus is not at {CORPUS}; it is not in this repository"),
]


def problems(out):
    return json.loads((out / "problems.json").read_text())["problems"]


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    out = tmp_path_factory.mktemp("repaired")
    prepare.run(prepare.Settings(input=CORPUS, out=out, repair=True, quiet=True))
    return out


def test_default_run_says_that_ids_are_merged(tmp_path, capsys):
    """The figures are those that were published with the corpus; one of the merged ids has twice the same limits."""
    manifest = prepare.run(prepare.Settings(input=CORPUS, out=tmp_path))
    shown = capsys.readouterr().out
    found = {p["kind"]: (p["trajectories"], p["steps"]) for p in problems(tmp_path)}
    assert found == {
        "merged_episodes": (5589, 68887),
        "two_limits": (5588, 68867),
        "overlong": (933, 23487),
        "standing_offer": (5589, 22787),
    }
    for kind, (ids, rows) in found.items():
        assert re.search(rf"{kind} +{ids:,} +{rows:,} +decision_steps.parquet:", shown)
    assert manifest["episodes"] == 9351 - 5589


def test_strict_run_refuses(tmp_path):
    with pytest.raises(InputError, match="merged_episodes"):
        prepare.run(prepare.Settings(input=CORPUS, out=tmp_path / "out", strict=True))
    assert not (tmp_path / "out").exists()


def test_repair_finds_every_episode(repaired):
    episodes = pq.read_table(repaired / "episodes.parquet")
    assert len(episodes) == 14940
    assert all(episodes["agreement"].to_pylist())
    rho = episodes["rho"].to_numpy()
    assert rho.mean() == pytest.approx(0.4955, abs=0.0005)
    assert rho.std() == pytest.approx(0.276, abs=0.001)
    assert len(pq.read_table(repaired / "steps.parquet")) == 92236
    turns = episodes["turns"].to_numpy()
    assert turns.mean() == pytest.approx(6.17, abs=0.01)
    kinds = [p["kind"] for p in problems(repaired)]
    assert kinds == ["merged_episodes", "two_limits", "overlong", "standing_offer", "history", "rho"]


def test_problems_give_the_rows(repaired):
    table = pq.read_table(CORPUS / "decision_steps.parquet")
    ids, standing = table["trajectory_id"].to_pylist(), table["last_offer_price"].to_pylist()
    histories = table["history_prices"].to_pylist()
    reported = {}
    for problem in problems(repaired):
        (runs,) = problem["rows"].values()
        reported[problem["kind"]] = [row for first, last in runs for row in range(first, last + 1)]
        assert len(reported[problem["kind"]]) == problem["steps"]
    merged = {ids[row] for row in reported["merged_episodes"]}
    assert len(merged) == 5589
    assert reported["merged_episodes"] == [row for row, name in enumerate(ids) if name in merged]
    pairs = enumerate(zip(histories, standing, strict=True))
    wrong = [row for row, (h, offer) in pairs if h and offer is not None and abs(h[-1] - offer) > 0.01]
    assert reported["standing_offer"] == wrong


def test_scattered_rows_make_no_difference(repaired, tmp_path):
    """All rows in another order, but those of one id among themselves: the same episodes under the same names."""
    table = pq.read_table(CORPUS / "decision_steps.parquet")
    ids = table["trajectory_id"].to_numpy()
    drawn = np.random.default_rng(0).permutation(len(table))
    spread = np.empty(len(table), dtype=np.intp)
    spread[np.argsort(ids[drawn], kind="stable")] = np.argsort(ids, kind="stable")
    pq.write_table(table.take(spread), tmp_path / "scattered.parquet")
    prepare.run(prepare.Settings(input=tmp_path / "scattered.parquet", out=tmp_path / "out", repair=True, quiet=True))
    assert table["trajectory_id"].to_pylist() != table.take(spread)["trajectory_id"].to_pylist()
    keys = [("trajectory_id", "ascending"), ("turn", "ascending")]
    ours, theirs = (pq.read_table(d / "steps.parquet").sort_by(keys) for d in (repaired, tmp_path / "out"))
    assert ours.equals(theirs)


def test_repaired_episodes_have_the_width_that_the_peer_used(repaired):
    """Not assumed by the repair: it links rows by offers, and the width is the peer's constant."""
    episodes = pq.read_table(repaired / "episodes.parquet")
    width = episodes["buyer_max"].to_numpy() - episodes["seller_min"].to_numpy()
    assert np.abs(width - 500).max() < 0.011


def test_prices_agree_with_the_peers_own_outcomes(repaired):
    outcomes = pq.read_table(CORPUS / "trajectory_outcomes.parquet").to_pydict()
    peer = dict(zip(outcomes["trajectory_id"], outcomes["accepted_price"], strict=True))
    episodes = pq.read_table(repaired / "episodes.parquet").to_pydict()
    ours = {}
    for name, price in zip(episodes["trajectory_id"], episodes["price"], strict=True):
        ours.setdefault(name.split("/")[0], set()).add(price)
    assert set(ours) == set(peer)
    assert all(price in ours[name] for name, price in peer.items())
