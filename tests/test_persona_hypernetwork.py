"""The hypernetwork command: what it may learn from, that it repeats, and what it writes, from end to end."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from bargain_env.errors import InputError
from experiments import cli, personas
from experiments.persona.arms import swapped
from experiments.persona.folder import read_data
from experiments.persona.generating import Hypernetwork, Lessons, seen_personas
from experiments.persona.instant import results_of
from experiments.persona.support import read_support
from hyperlora.adapters import HyperNetwork, inject_rows, read_peft
from hyperlora.adapters.hypernetwork_files import load_hypernetwork
from hyperlora.base import load_base

FEW = ["--steps", 3, "--evaluate-every", 2, "--personas-per-step", 3, "--rows-per-persona", 2, "--draws", 1]
FEW += ["--val-rows", 8, "--bottleneck-dim", 8, "--threads", 1]


def command(*words):
    return personas.run(cli.parse(personas.Settings, [str(word) for word in words]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Five personas, two of them unseen, with adapters."""
    folder = tmp_path_factory.mktemp("hypernetwork") / "personas"
    command("make", "--out", folder, "--personas", 5, "--games", 5, "--unseen", 0.4, "--quiet")
    command("train", folder, "--epochs", 1, "--pooled-epochs", 1, "--threads", 1, "--quiet")
    return folder


@pytest.fixture(scope="module")
def done(trained):
    return command("hypernetwork", trained, *FEW, "--quiet")


# ── what it may learn from ────────────────────────────────────────────────────────────────────────────────────────────


def test_histories_are_what_the_counterpart_saw(trained):
    data, support = read_data(trained), read_support(read_data(trained))
    for k, persona in enumerate(data.personas):
        rows = data.rows("train", k)
        offers = [row for row in data.table.take(rows).to_pylist() if row["target_price"] is not None]
        assert support.games[k] == sorted({int(g) for g in data.game[rows]} & set(support.games[k]))
        assert [x for history in support.histories[k] for x in history.offers] == [r["target_price"] for r in offers]
        for history in support.histories[k]:
            assert history.seat == persona.seat
            assert len(history.offers) - len(history.replies) in (0, 1)
    late = [row for row in data.table.take(data.rows("train")).to_pylist() if row["turn"] >= 5 and row["target_price"]]
    assert late
    for row in late:
        k = [p.id for p in data.personas].index(row["persona"])
        history = support.histories[k][support.games[k].index(row["game"])]
        assert set(row["history_prices"]) <= {*history.offers, *history.replies}
        assert (history.low, history.high) == (row["price_low"], row["price_high"])


def test_lessons_hold_training_games_of_seen_personas_other_than_those_shown(trained):
    data, support = read_data(trained), read_support(read_data(trained))
    shown, settings = [], Hypernetwork(trained, personas_per_step=3, support_games=2)
    lessons = Lessons(data, support, support.fitted(seen_personas(data)), settings)
    lessons.support = _Spy(support, shown)
    for step in range(30):
        shown.clear()
        embeddings, rows, owner = lessons.take(step)
        assert len(embeddings) == len(shown) == 3
        for i, (k, games) in enumerate(shown):
            mine = rows[owner == i]
            assert not data.personas[k].unseen
            assert (data.owner[mine] == k).all()
            assert (data.split[mine] == "train").all()
            assert not set(data.game[mine].tolist()) & set(games)
            assert len(mine)
    again = Lessons(data, support, lessons.embedding, settings).take(29)
    assert torch.equal(again[0], embeddings)
    assert np.array_equal(again[1], rows)


class _Spy:
    """A support that notes what is asked of it."""

    def __init__(self, support, asked):
        self.support, self.games, self.asked = support, support.games, asked

    def embed(self, embedding, persona, games, offers):
        self.asked.append((persona, list(games)))
        return self.support.embed(embedding, persona, games, offers)


def test_what_unseen_personas_do_changes_nothing_that_is_learned(trained):
    data = read_data(trained)
    hidden = np.isin(data.owner, [k for k, p in enumerate(data.personas) if p.unseen])
    prices = data.table["target_price"].to_numpy(zero_copy_only=False).astype(float)
    low = data.table["price_low"].to_numpy()
    changed = np.where(hidden & ~np.isnan(prices), low, prices)
    column = data.table.column_names.index("target_price")
    other = replace(data, table=data.table.set_column(column, "target_price", pa.array(changed, from_pandas=True)))
    seen, taken = seen_personas(data), []
    for each in (data, other):
        support = read_support(each)
        embedding = support.fitted(seen)
        lessons = Lessons(each, support, embedding, Hypernetwork(trained))
        taken.append([embedding.as_config(), *(x.tolist() for step in range(5) for x in lessons.take(step))])
        assert any(
            read_support(other).histories[k] != read_support(data).histories[k] for k in set(range(5)) - set(seen)
        )
    assert taken[0] == taken[1]


# ── what comes of it ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_and_network_from_end_to_end(trained, done, tmp_path):
    written = json.loads((trained / "hypernetwork_results.json").read_text())
    assert written == json.loads(json.dumps(done))
    assert (written["seen"], written["unseen"], len(written["personas"])) == (3, 2, 2)
    arms = ["per_persona", "pooled", "pooled_seen", *(f"generated_{n}_offers" for n in (0, 1, 2, 3, 5, 10))]
    arms += ["generated_5_offers_of_2_games", "generated_5_offers_of_4_games", "swapped_embedding"]
    assert list(written["arms"]) == arms
    for name, arm in written["arms"].items():
        mean = np.mean([persona[name] for persona in written["personas"].values()])
        assert arm["gain"]["value"] == pytest.approx(mean)
        assert arm["gain"]["ci_low"] <= arm["gain"]["value"] <= arm["gain"]["ci_high"]
    assert written["arms"]["per_persona"]["share_of_trained"]["value"] == 1.0
    assert {int(step) for step in written["training"]["val_losses"]} == {0, 2, 3}
    model = inject_rows(load_base("janus-nano")[0])
    network, config = load_hypernetwork(trained / "hypernetwork", model)
    assert network.digest() == written["hypernetwork_digest"]
    assert config["training"]["data_sha256"] == read_data(trained).digest
    experts = sorted(path.name for path in (trained / "lora_generated").iterdir())
    assert experts == list(written["personas"])
    for name in experts:
        assert read_peft(trained / "lora_generated" / name).metadata["hypernetwork_digest"] == network.digest()


def test_the_same_command_repeats_and_one_with_other_settings_is_refused(trained, done, tmp_path):
    other = command("hypernetwork", trained, *FEW, "--out", tmp_path, "--quiet")
    assert other == done
    for name in ("config.json", "hypernetwork.safetensors"):
        assert (tmp_path / "hypernetwork" / name).read_bytes() == (trained / "hypernetwork" / name).read_bytes()
    assert command("hypernetwork", trained, *FEW, "--out", tmp_path, "--quiet") == done
    with pytest.raises(InputError, match="other settings"):
        command("hypernetwork", trained, *FEW, "--lr", 1e-4, "--out", tmp_path, "--quiet")


def test_swapped_among_unseen_personas_stays_among_them(trained):
    data = read_data(trained)
    unseen = [k for k, persona in enumerate(data.personas) if persona.unseen]
    assert swapped(data, unseen).tolist() == unseen[::-1]


def test_shares_by_hand(trained):
    data = read_data(trained)
    gains = {
        "per_persona": np.array([1.0, 3.0]),
        "pooled_seen": np.array([0.5, 0.5]),
        "generated_5_offers": np.array([1.0, 2.0]),
    }
    found = results_of(data, gains, HyperNetwork(2, {"a": (3, 4)}), {}, Hypernetwork(trained))
    five = found["arms"]["generated_5_offers"]
    assert five["gain"]["value"] == 1.5
    assert five["share_of_trained"]["value"] == 0.75
    assert five["above_pooled_seen"]["value"] == 1.0
    assert five["share_of_trained"]["ci_low"] < 0.75 < five["share_of_trained"]["ci_high"]
    assert found["parameters"] == HyperNetwork(2, {"a": (3, 4)}).size()


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--steps", 0], "--steps 0"),
        (["--lr", 0], "--lr 0"),
        (["--penalty", -1], "--penalty -1"),
        (["--head-rank", 0], "--head-rank 0"),
        (["--bottleneck-dim", 0], "--bottleneck-dim 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(trained, words, match):
    with pytest.raises(InputError, match=match):
        command("hypernetwork", trained, *words)


def test_it_needs_adapters_and_unseen_personas(trained, tmp_path):
    with pytest.raises(InputError, match=r"holds no personas\.json"):
        command("hypernetwork", tmp_path / "nowhere")
    copy = tmp_path / "all_seen"
    shutil.copytree(trained, copy)
    about = json.loads((copy / "personas.json").read_text())
    for persona in about["personas"]:
        persona["unseen"] = False
    (copy / "personas.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"no persona in .* is unseen"):
        command("hypernetwork", copy, *FEW)
    shutil.rmtree(copy / "lora_per_user" / "persona_000")
    with pytest.raises(InputError, match="persona_000 is missing"):
        command("hypernetwork", copy, *FEW)
