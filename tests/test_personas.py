"""The personas command: who plays, what is written, what is refused, and all three steps from end to end."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import agents
from bargain_env.errors import InputError
from experiments import cli, personas
from experiments.persona.arms import Arms, swap_counts, swapped
from experiments.persona.cast import Persona, sample_personas, training_families
from experiments.persona.evaluating import evaluate
from experiments.persona.folder import read_data, write_data
from experiments.persona.games import require_decisions, split_of, split_sizes
from experiments.persona.measures import FIGURES, is_answer
from experiments.persona.training import add_time, groups_of, times
from hyperlora.adapters.folders import read_spec
from hyperlora.adapters.keywords import keywords_of
from hyperlora.adapters.many import LoRAPlan
from hyperlora.prompt import decision_target, price_axis

SMALL = ["--personas", 3, "--games", 4, "--max-turns", 6]
TRAINING = ["--epochs", 2, "--batch-size", 2, "--warmup-steps", 1, "--together", 2]
TRAINING += ["--pooled-epochs", 1, "--threads", 1, "--quiet"]
ARMS = ["baseline", "per_persona", "pooled", "hyperlora", "swapped"]


def command(*words):
    return personas.run(cli.parse(personas.Settings, [str(word) for word in words]))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve personas with six games each, not trained."""
    folder = tmp_path_factory.mktemp("personas") / "made"
    command("make", "--out", folder, "--personas", 12, "--games", 6, "--quiet")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three personas that have been through all three steps."""
    folder = tmp_path_factory.mktemp("personas") / "trained"
    command("make", "--out", folder, *SMALL, "--quiet")
    command("train", folder, *TRAINING)
    command("eval", folder, "--threads", 1, "--games-curve", "1,2", "--curve-personas", 2, "--quiet")
    return folder


# ── who plays ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_personas_are_different_trained_and_balanced():
    found = sample_personas(200, 0, training_families(), ["paper", "hidden", "no_deal"], 0.2)
    assert len({(p.strategy, p.preset, p.seat) for p in found}) == len({p.id for p in found}) == 200
    assert all(agents.describe(p.strategy).may_train for p in found)
    assert {p.family for p in found} == set(training_families())
    assert sum(p.unseen for p in found) == 40
    for values in ([p.seat for p in found], [p.preset for p in found]):
        counts = [values.count(value) for value in set(values)]
        assert max(counts) - min(counts) <= 0.15 * 200
    again = sample_personas(50, 0, training_families(), ["paper", "hidden", "no_deal"], 0.2)
    assert [(p.strategy, p.preset, p.seat) for p in again] == [(p.strategy, p.preset, p.seat) for p in found[:50]]
    other = sample_personas(50, 1, training_families(), ["paper", "hidden", "no_deal"], 0.2)
    assert [p.strategy for p in other] != [p.strategy for p in again]


@pytest.mark.parametrize(
    ("families", "count", "match"),
    [
        (["exponential"], 3, "held out"),
        (["boulwar"], 3, "boulware"),
        (["tit_for_tat"], 7, "only 6 different personas"),
        (["boulware", "tit_for_tat", "boulware"], 3, "family boulware is named twice"),
    ],
)
def test_families_that_cannot_be_are_refused(families, count, match):
    with pytest.raises(InputError, match=match):
        sample_personas(count, 0, families, ["paper", "hidden", "no_deal"], 0.2)


@pytest.mark.parametrize("games", [3, 4, 5, 6, 10, 50])
def test_every_split_has_a_game(games):
    sizes = split_sizes(games)
    assert sum(sizes) == games
    assert min(sizes) >= 1
    assert split_sizes(50) == (30, 10, 10)


# ── what is written ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_splits_are_by_game_inside_each_persona(made):
    data, splits = read_data(made), json.loads((made / "splits.json").read_text())
    seen = {}
    for owner, game, split in zip(data.owner, data.game, data.split, strict=True):
        assert seen.setdefault((owner, game), split) == split
    assert len(seen) == 12 * 6
    for k, persona in enumerate(data.personas):
        parts = splits[persona.id]
        assert sorted(game for part in parts.values() for game in part) == list(range(6))
        assert [len(parts[name]) for name in ("train", "val", "test")] == [4, 1, 1]
        assert {(k, game): name for name, games in parts.items() for game in games}.items() <= seen.items()
    ids = {}
    for game, split in zip(data.table["trajectory_id"].to_pylist(), data.split, strict=True):
        assert ids.setdefault(game, split) == split


def test_rows_are_the_personas_own_decisions_and_show_no_private_limit(made):
    data = read_data(made)
    table = data.table.to_pylist()
    own = {persona.id: persona for persona in data.personas}
    counterparts = set()
    for row in table:
        persona = own[row["persona"]]
        assert row["role"] == persona.seat
        assert row["strategy"] == persona.strategy
        assert row["reservation_price"] == (row["price_high"] if persona.seat == "buyer" else row["price_low"])
        counterparts.add(row["opponent_strategy"])
    assert counterparts <= set(agents.list_strategies(split="train"))
    assert len(counterparts) > 5


def test_prompts_do_not_depend_on_what_is_private(made, tmp_path):
    """Two collections that differ only in the limit shown: where it is public, the prompt tells nothing of the own one."""
    from hyperlora.base import load_tokenizer_of

    tokenizer = load_tokenizer_of("janus-nano")
    command("make", "--out", tmp_path / "own", "--personas", 12, "--games", 6, "--limit", "own", "--quiet")
    public, own = read_data(made), read_data(tmp_path / "own")
    assert public.table["target_price"].to_pylist() == own.table["target_price"].to_pylist()
    shown = {}
    for data, name in ((public, "public"), (own, "own")):
        dataset = data.dataset(tokenizer, 4)
        prompts = [tokenizer.decode(dataset.ids[a : a + n].tolist())
                   for a, n in zip(dataset.offsets[:-1], dataset.prompt_lengths, strict=True)]  # fmt: skip
        lines = [next(line for line in prompt.splitlines() if "RESERVATION" in line) for prompt in prompts]
        assert all("<RHO> 0.5000" in prompt for prompt in prompts)
        shown[name] = set(lines)
    assert len(shown["public"]) == 2
    assert len(shown["own"]) > 20


def test_the_same_settings_give_the_same_bytes_and_others_do_not(made, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        command("make", "--out", tmp_path / name, "--personas", 12, "--games", 6, "--seed", seed, "--quiet")
    for file in ("personas.json", "splits.json", "steps.parquet"):
        assert (tmp_path / "again" / file).read_bytes() == (made / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (made / file).read_bytes()


def test_more_games_begin_with_the_same_ones(made, tmp_path):
    command("make", "--out", tmp_path / "more", "--personas", 12, "--games", 8, "--quiet")
    few, many = read_data(made).table, read_data(tmp_path / "more").table
    known = [(row["persona"], row["game"], row["turn"], row["target_price"]) for row in few.to_pylist()]
    assert known == [
        (row["persona"], row["game"], row["turn"], row["target_price"]) for row in many.to_pylist() if row["game"] < 6
    ]


def test_mean_rho_is_over_settled_training_games(made):
    data = read_data(made)
    games = {}
    for row, owner, split in zip(data.table.to_pylist(), data.owner, data.split, strict=True):
        if split == "train" and row["rho_train"] is not None and row["rho_train"] > -1:
            games[owner, row["game"]] = row["rho_train"]
    for k, mean in enumerate(data.mean_rho()):
        own = [rho for (owner, _), rho in games.items() if owner == k]
        assert mean == pytest.approx(np.clip(np.mean(own), 0, 1) if own else -1.0)


def test_splits_name_games_without_a_decision(made, tmp_path):
    data = read_data(made)
    plan = split_of(12, 6, 0)
    gone = int(np.flatnonzero(plan[3] == "train")[0])
    table = data.table.filter(pa.array((data.owner != 3) | (data.game != gone)))
    require_decisions(data.personas, table)
    write_data(tmp_path, data.personas, table, plan, data.settings)
    assert (tmp_path / "splits.json").read_bytes() == (made / "splits.json").read_bytes()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_persona_without_a_decision_in_a_split_is_refused(made, split):
    data = read_data(made)
    table = data.table.filter(pa.array((data.owner != 3) | (data.split != split)))
    with pytest.raises(InputError, match=rf"persona_003 \(.*decides nothing in its {split} games"):
        require_decisions(data.personas, table)


def test_a_curve_beyond_the_games_is_refused_before_any_arm_is_asked(made):
    arms = SimpleNamespace(data=read_data(made), names=["baseline"])  # has nothing that could be asked
    for games in ([2, 5], [0, 2]):
        with pytest.raises(InputError, match="but a persona has 4"):
            evaluate(arms, games, 2, LoRAPlan(), "base", 0, print)


def test_groups_hold_everybody_once_and_do_not_depend_on_what_is_done(made):
    data = read_data(made)
    groups = groups_of(data, 5)
    assert sorted(k for group in groups for k in group) == list(range(12))
    assert [len(group) for group in groups] == [5, 5, 2]


@pytest.mark.parametrize("count", [2, 3, 7, 12, 13, 31, 200])
def test_swapped_stays_with_seat_and_preset_and_leaves_the_family(count):
    cast = sample_personas(count, 0, training_families(), ["paper", "hidden", "no_deal"], 0.2)
    data = SimpleNamespace(personas=cast, settings={"seed": 0})
    others = swapped(data)
    assert sorted(others) == list(range(count))
    assert (others != np.arange(count)).all()
    places = Counter((p.seat, p.preset) for p in cast)
    alone = [k for k, p in enumerate(cast) if places[p.seat, p.preset] == 1]
    crossing = [
        k for k in range(count) if (cast[k].seat, cast[k].preset) != (cast[others[k]].seat, cast[others[k]].preset)
    ]
    assert len(crossing) == (2 if len(alone) == 1 else len(alone))  # one that is alone needs a partner
    assert set(alone) <= set(crossing)
    assert swap_counts(data, others) == {
        "personas": count,
        "other_seat_or_preset": len(crossing),
        "same_family": 0,  # families take turns, so no group is mostly of one
    }


def test_swapped_stays_in_a_family_no_more_often_than_it_must():
    families = ["a", "a", "a", "a", "b", "c"]  # of the four, two find a partner outside
    cast = [Persona(f"p{k}", f"{family}{k}", family, "paper", "buyer") for k, family in enumerate(families)]
    data = SimpleNamespace(personas=cast, settings={"seed": 3})
    assert swap_counts(data, swapped(data)) == {"personas": 6, "other_seat_or_preset": 0, "same_family": 2}


def test_everything_that_training_asks_for_is_a_valid_answer(made):
    data = read_data(made)
    facts = data.facts(4)
    for row, may in zip(data.table.to_pylist(), facts.may_accept, strict=True):
        axis = price_axis(4, row["price_low"], row["price_high"], row["reservation_price"], row["role"])
        assert is_answer(decision_target(row["target_action"], row["target_price"], axis), may)


# ── from end to end ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_hold_every_arm_metric_and_persona(trained):
    results = json.loads((trained / "per_persona_results.json").read_text())
    assert list(results["overall"]) == ARMS
    assert results["swapped"] == {"personas": 3, "other_seat_or_preset": 3, "same_family": 0}
    assert list(results["personas"]) == ["persona_000", "persona_001", "persona_002"]
    for arm in ARMS:
        assert list(results["overall"][arm]) == list(FIGURES)
        assert results["overall"][arm]["log_likelihood"] < 0
    baseline = json.loads((trained / "baseline_results.json").read_text())
    assert baseline["figures"] == results["overall"]["baseline"]
    rows = list(csv.DictReader((trained / "per_persona_summary.csv").open()))
    groups = {row["persona"] for row in rows}
    assert {"ALL", "persona_000", "persona_001", "persona_002"} <= groups
    assert len(rows) == len(groups) * 7 * len(FIGURES)
    for row in rows:
        if row["delta"]:
            assert float(row["value"]) - float(row["reference"]) == pytest.approx(float(row["delta"]), abs=1e-12)
        if row["ci_low"]:
            assert float(row["ci_low"]) <= float(row["ci_high"])
    report = (trained / "report.md").read_text()
    for heading in ("All arms", "Who benefits", "How the gain grows", "Memorised or generalised", "Storage"):
        assert f"## {heading}" in report
    curve = json.loads((trained / "games_curve.json").read_text())
    assert list(curve) == ["1", "2"]


def test_samples_show_prompt_target_and_every_answer(trained):
    lines = [json.loads(line) for line in (trained / "sample_outputs.jsonl").read_text().splitlines()]
    assert 1 <= len(lines) <= 20
    for line in lines:
        assert line["prompt"].endswith("<OUTPUT>\n")
        assert line["target"].split()[0] in ("ACCEPT", "OFFER")
        assert list(line["arms"]) == ARMS
        assert all(said["answer"].split()[0] in ("ACCEPT", "OFFER") for said in line["arms"].values())


def test_training_lowered_the_loss_and_adapters_are_plain_peft(trained):
    import peft
    from transformers import AutoModelForCausalLM

    from hyperlora.base import nano_folder

    results = json.loads((trained / "per_persona_results.json").read_text())["personas"]
    assert np.mean([entry["gain_train"] for entry in results.values()]) > 0
    base = AutoModelForCausalLM.from_pretrained(str(nano_folder() / "base"))
    model = peft.PeftModel.from_pretrained(base, str(trained / "lora_per_user" / "persona_000")).eval()
    ids = torch.arange(20, 32)[None]
    with torch.no_grad(), model.disable_adapter():
        plain = model(ids).logits
    with torch.no_grad():
        assert (model(ids).logits - plain).abs().max() > 1e-5
    assert {path.name for path in (trained / "lora_per_user" / "persona_000").iterdir()} == {
        "adapter_config.json",
        "adapter_meta.json",
        "adapter_model.safetensors",
        "training.json",
    }


def test_routers_can_read_what_an_adapter_is_for(trained):
    for persona in read_data(trained).personas:
        spec = read_spec(trained / "lora_per_user" / persona.id)
        assert spec.domain == persona.family
        assert spec.description == f"{persona.seat} on {persona.preset}: {persona.strategy}"
        assert persona.seat in keywords_of(spec)


def test_training_times_are_stored_and_reported(trained):
    found = json.loads((trained / "training_times.json").read_text())
    assert {what: entry["adapters"] for what, entry in found.items()} == {
        "lora_per_user": 3,
        "lora_all": 1,
        "hyperlora_all": 1,
    }
    records = [json.loads(path.read_text()) for path in trained.glob("lora_per_user/*/training.json")]
    assert found["lora_per_user"]["steps"] == sum(record["steps"] for record in records)
    assert all(entry["seconds"] > 0 and entry["threads"] == [1] for entry in found.values())
    assert "| lora_per_user | 3 |" in (trained / "report.md").read_text()


def test_times_of_several_runs_add_up(tmp_path):
    for seconds in (2.0, 0.5):
        add_time(tmp_path, "lora_all", 1, seconds, 10)
    found = times(tmp_path)["lora_all"]
    assert (found["adapters"], found["seconds"], found["steps"]) == (2, 2.5, 20)
    (tmp_path / "training_times.json").write_text("{")
    with pytest.raises(InputError, match=r"training_times\.json is damaged"):
        times(tmp_path)


def test_adapters_start_from_the_one_for_all_or_from_the_base(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    shutil.rmtree(copy / "lora_per_user")
    (copy / "train.json").unlink()
    command("train", copy, *TRAINING, "--lr", 0.0)
    everybody = load_file(copy / "lora_all" / "adapter_model.safetensors")
    own = [load_file(path) for path in sorted(copy.glob("lora_per_user/*/adapter_model.safetensors"))]
    assert len(own) == 3
    assert all(torch.equal(one[name], value) for one in own for name, value in everybody.items())
    shutil.rmtree(copy / "lora_per_user")
    (copy / "train.json").unlink()
    command("train", copy, *TRAINING, "--lr", 0.0, "--start", "base")
    own = [load_file(path) for path in sorted(copy.glob("lora_per_user/*/adapter_model.safetensors"))]
    assert all(not value.any() for one in own for name, value in one.items() if "lora_B" in name)


def test_what_another_version_trained_is_not_guessed_at(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    about = json.loads((copy / "train.json").read_text())
    about.pop("start")
    (copy / "train.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"train\.json does not say start"):
        command("eval", copy, "--quiet")


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("lora_per_user/persona_001", "training.json"),
        ("lora_all", "training.json"),
        ("hyperlora_all", "adapter_config.json"),
    ],
)
def test_adapters_of_other_games_are_refused(trained, tmp_path, folder, file):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    record = json.loads((copy / folder / file).read_text())
    (copy / folder / file).write_text(json.dumps({**record, "data_sha256": "0" * 64}))
    with pytest.raises(InputError, match=f"{folder} was trained on other games .* remove "):
        Arms(read_data(copy), "janus-nano", 4)


def test_an_interrupted_run_continues_to_the_same_bytes(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    lost = copy / "lora_per_user" / "persona_001"
    before = {path.name: path.read_bytes() for path in lost.iterdir()}
    shutil.rmtree(lost)
    again = ["train", copy, *TRAINING]
    done = command(*again)
    assert {path.name: path.read_bytes() for path in lost.iterdir()} == before
    assert done["personas"]["trained"] <= 2
    assert command(*again)["personas"]["trained"] == 0
    with pytest.raises(InputError, match="other settings"):
        command(*again, "--lr", 1e-3)
    (copy / "steps.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"steps\.parquet is missing or was changed"):
        command("eval", copy, "--quiet")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["make", "--games", 2], "--games 2"),
        (["make", "--families", "exponential"], "held out"),
        (["make", "--scenario", "nowhere"], "nowhere"),
        (["make", "--unseen", 1], "--unseen"),
        (["make", "--personas", 0], "--personas 0"),
        (["make", "--seed", -1], "--seed -1"),
        (["make", "--max-turns", 1, "--games", 3], r"persona_\d+ .* decides nothing in its \w+ games"),
        (["make", "--scenario", "paper,hidden,paper"], "preset paper is named twice"),
    ],
)
def test_settings_that_cannot_be_are_refused(words, match, tmp_path):
    with pytest.raises(InputError, match=match):
        command(*words, "--out", tmp_path / "x", "--quiet")
    assert not (tmp_path / "x" / "personas.json").exists()


def test_steps_in_the_wrong_order_say_what_to_run_first(made, tmp_path):
    for step in ("train", "eval"):
        with pytest.raises(InputError, match=r"experiments\.personas make"):
            command(step, tmp_path, "--quiet")
    with pytest.raises(InputError, match=r"experiments\.personas train"):
        command("eval", made, "--quiet")
    with pytest.raises(InputError, match="--decode sample"):
        command("eval", made, "--decode", "sample:0.7", "--quiet")
    with pytest.raises(InputError, match="--threads 0"):
        command("train", made, "--threads", 0)
    with pytest.raises(InputError, match="rank 0"):
        command("train", made, "--rank", 0)
    with pytest.raises(InputError, match="--start pooled needs the adapter for all"):
        command("train", made, "--pooled-epochs", 0)
    assert not (made / "lora_per_user").exists()


def test_new_personas_do_not_replace_those_that_have_adapters(trained):
    before = Path(trained / "steps.parquet").read_bytes()
    with pytest.raises(InputError, match="holds adapters of earlier personas"):
        command("make", "--out", trained, *SMALL, "--quiet")
    assert (trained / "steps.parquet").read_bytes() == before
    assert pq.read_table(trained / "steps.parquet").num_rows > 0
