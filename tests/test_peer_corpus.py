"""A corpus that nobody here wrote: two runs merged under the same ids, found and taken apart."""

import json
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


@pytest.fixture(scope="module")
def repaired(tmp_path_factory):
    out = tmp_path_factory.mktemp("repaired")
    prepare.run(prepare.Settings(input=CORPUS, out=out, repair=True, quiet=True))
    return out


def test_default_run_says_that_ids_are_merged(tmp_path, capsys):
    manifest = prepare.run(prepare.Settings(input=CORPUS, out=tmp_path))
    assert "merged_episodes in 5,589 ids, 68,887 steps" in capsys.readouterr().out
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
    problems = {p["kind"] for p in json.loads((repaired / "problems.json").read_text())["problems"]}
    assert problems == {"merged_episodes", "history", "rho"}


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
