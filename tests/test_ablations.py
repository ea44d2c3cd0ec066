"""`experiments.ablations`: one command trains what janus-nano is compared with; what it finished it does not do again."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from made_teachers import saved

from agents.janus import JanusAgent
from bargain_env.errors import InputError
from experiments import ablations, cli, keeper, stages, train
from experiments.match import arms, contestants
from experiments.play_evaluation import evaluate_play
from hyperlora import Adapter, bind_rho, load_hyperlora_adapter
from hyperlora.checkpoint import read_config, read_state
from hyperlora.constant_gates import has_constant_gates, mean_gates
from hyperlora.data import NegotiationDataset, read_steps

ARMS = ("lora", "gates", "both")


def settings(prepared, base, out, **changes):
    options = {"adapter_steps": 4, "batch_size": 8, "threads": 1, "quiet": True, "model_name": str(base),
               "teacher_rounds": 0}  # fmt: skip
    return ablations.Settings(**{**options, "out": out, "data": prepared, **changes})


@pytest.fixture(scope="module")
def trained(training_data, tiny_base, tmp_path_factory):
    """A folder with the arms that speak of channels, trained without looking how they do."""
    out = tmp_path_factory.mktemp("ablations")

    def blind(*args, **options):
        return dataclasses.replace(stages.adapter_settings(*args, **options), eval_every=0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablations, "adapter_settings", blind)
        ablations.run(settings(training_data, tiny_base, out, arms=",".join(ARMS)))
    return out


def test_every_arm_is_told_one_thing(training_data, tiny_base, tmp_path, monkeypatch):
    made = {}
    monkeypatch.setattr(ablations.train, "run", lambda chosen: made.update({chosen.out.name: vars(chosen)}))
    arms_ = ",".join(ablations.CHANGES)
    monkeypatch.setattr(ablations, "has_asked", lambda data: True)
    ablations.run(settings(training_data, tiny_base, tmp_path, arms=arms_))
    assert made["both"]["labels"] == "asked"
    assert list(made) == list(ablations.CHANGES)
    for arm, changed in ablations.CHANGES.items():
        told = {k: v for k, v in made[arm].items() if k != "out" and made["both"][k] != v}
        assert told == dict(changed), arm


def test_arms_differ_in_one_thing(trained):
    runs = {arm: read_config(trained / arm / "final")["run"] for arm in ("lora", "gates", "both")}
    assert runs["lora"] != runs["gates"] != runs["both"]
    for arm in ARMS:
        assert {k for k in runs["both"] if runs[arm][k] != runs["both"][k]} == set(ablations.CHANGES[arm])
    nano = stages.adapter_settings("x", "y", "z", asked=False, batch_size=8, steps=4, seed=0, quiet=True)
    shared = ("lr", "rank", "alpha", "labels", "rho_jitter", "schedule", "warmup_steps")
    assert all(runs["both"][k] == getattr(nano, k) for k in shared)


def test_the_lora_has_no_dial_in_its_gates(trained):
    models = {arm: load_hyperlora_adapter(trained / arm / "final").model for arm in ARMS}
    assert {arm: has_constant_gates(model) for arm, model in models.items()} == {
        "lora": True,
        "gates": False,
        "both": False,
    }
    assert torch.equal(mean_gates(models["lora"]), torch.ones_like(mean_gates(models["lora"])))
    x = torch.arange(12).reshape(1, 12)
    found = {}
    for arm, model in models.items():
        for rho in (0.1, 0.9):
            with torch.no_grad(), bind_rho(model, rho):
                found[arm, rho] = model(x).logits
    assert not torch.equal(found["both", 0.1], found["both", 0.9])
    assert torch.equal(found["lora", 0.1], found["lora", 0.9])
    weights = {arm: read_state(trained / arm / "final") for arm in models}
    trained_b = [name for name in weights["lora"] if name.endswith("lora_B")]
    assert all(weights["lora"][name].abs().max() > 0 for name in trained_b), "the rest has learned"
    for a, b in (("lora", "both"), ("gates", "both")):
        assert any(not torch.equal(weights[a][name], weights[b][name]) for name in trained_b), (
            "from other prompts or gates"
        )


def test_each_arm_plays_as_it_was_trained(trained):
    agents_ = {arm: JanusAgent(trained / arm / "final") for arm in ARMS}
    assert {arm: agent.text_rho for arm, agent in agents_.items()} == {"lora": None, "gates": 0.5, "both": None}
    labels = f"lora:{trained}/lora/final,janus:{trained}/gates/final,janus:{trained}/both/final"
    assert [c.arm for c in contestants.resolve_agents(labels)] == ["lora", "gates_trained", "both"]


def test_finished_arms_are_left_alone(training_data, tiny_base, trained, capsys, monkeypatch):
    files = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.name != ablations.SETTINGS}
    ablations.run(settings(training_data, tiny_base, trained, quiet=False))
    out = capsys.readouterr().out
    assert out.count("done before") == 2
    assert f"lora:{trained}/lora/final,janus:{trained}/gates/final" in out.replace("\n", "")
    assert {path: path.stat().st_mtime_ns for path in files} == files
    made = []
    monkeypatch.setattr(ablations.train, "run", lambda chosen: made.append(chosen.out.name))
    (trained / "gates/final/adapter_config.json").rename(trained / "gates/kept.json")
    ablations.run(settings(training_data, tiny_base, trained, arms="gates,lora"))
    (trained / "gates/kept.json").rename(trained / "gates/final/adapter_config.json")
    assert made == ["gates"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": "lorra"}, "did you mean 'lora'"),
        ({"arms": ","}, "--arms is empty"),
        ({"adapter_steps": 0}, "--adapter-steps 0"),
        ({"threads": 0}, "--threads 0"),
        ({"scenario": "papr"}, "did you mean 'paper'"),
        ({"scenario": "paper,hiden"}, "did you mean 'hidden'"),
        ({"scenario": ","}, "--scenario is empty"),
        ({"teacher_rounds": -1}, "--teacher-rounds -1"),
        ({"teacher_share": 1.5}, "--teacher-share 1.5"),
        ({"teacher_rounds": 1}, "other settings"),
        ({"arms": "outcome"}, "--arms outcome: nobody was asked"),
        ({"data": "nowhere"}, "nowhere does not exist"),
        ({"adapter_steps": 5}, "other settings"),
        ({"seed": 1}, "other settings"),
    ],
)
def test_refusals(training_data, tiny_base, trained, tmp_path, changes, message):
    if changes.get("data"):
        changes = {"data": tmp_path / changes["data"]}
    before = (trained / ablations.SETTINGS).read_text()
    with pytest.raises(InputError, match=message):
        ablations.run(settings(training_data, tiny_base, trained, **changes))
    assert (trained / ablations.SETTINGS).read_text() == before


def test_other_data_are_another_run(training_data, tiny_base, trained, tmp_path):
    other = tmp_path / "data"
    other.mkdir()
    (other / "steps.parquet").write_bytes((training_data / "steps.parquet").read_bytes())
    assert ablations.run(settings(other, tiny_base, trained, arms="lora")) == [trained / "lora/final"]
    pq.write_table(pq.read_table(training_data / "steps.parquet").slice(1), other / "steps.parquet")
    with pytest.raises(InputError, match="other settings"):
        ablations.run(settings(other, tiny_base, trained, arms="lora"))


def test_from_nothing(tmp_path, tiny_base, monkeypatch):
    made = []
    monkeypatch.setattr(ablations.train, "run", lambda chosen: made.append(chosen))
    chosen = settings(None, tiny_base, tmp_path / "out", episodes=60, arms="lora")
    ablations.run(chosen)
    assert json.loads((tmp_path / "out/ready/manifest.json").read_text())
    assert [s.data for s in made] == [tmp_path / "out/ready"]
    assert read_steps(tmp_path / "out/ready", "train").num_rows > 100
    assert set(read_steps(tmp_path / "out/ready", "train")["seed"].to_pylist()) == {1_000_000}
    assert [s.labels for s in made] == ["outcome"]


def test_a_refused_arm_leaves_no_claim(training_data, tiny_base, tmp_path):
    with pytest.raises(InputError, match="--arms outcome"):
        ablations.run(settings(training_data, tiny_base, tmp_path / "out", arms="outcome"))
    assert not (tmp_path / "out").exists()


def test_from_nothing_with_trained_teachers(tmp_path, tiny_base, monkeypatch):
    """Every arm learns what they were asked for; without a share of seats there is nobody to learn that from."""
    made, taught = [], []
    monkeypatch.setattr(ablations.train, "run", lambda chosen: made.append(chosen))
    monkeypatch.setattr(stages.teacher, "run", lambda chosen: taught.append(saved(chosen.out)))
    for share in (0.5, 0.0):
        changes = {"episodes": 60, "teacher_rounds": 7, "teacher_share": share, "arms": "lora,both"}
        ablations.run(settings(None, tiny_base, tmp_path / str(share), **changes))
    assert taught == [tmp_path / "0.5" / stages.TEACHER]
    assert [(s.labels, s.rho_jitter > 0) for s in made] == [("asked", False)] * 2 + [("outcome", True)] * 2
    ready = [tmp_path / share / "ready" for share in ("0.5", "0.0")]
    assert [ablations.has_asked(data) for data in ready] == [True, False]
    players = [set(read_steps(data)["strategy"].to_pylist()) for data in ready]
    assert [any(name.startswith("teacher(") for name in names) for names in players] == [True, False]


def test_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(ablations.Settings, ablations.run, ["--out", str(tmp_path), "--arms", "nobody"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert ablations.Settings().out / "lora" / "final" == arms.LORA


# ── the settings of training that make the arms ───────────────────────────────────────────────────────────────────────


def test_one_text_for_all_rows_leaves_the_gates_their_rho(training_data, trained):
    tokenizer = load_hyperlora_adapter(trained / "both" / "final").tokenizer
    table = read_steps(training_data, "train").slice(0, 60)
    plain, fixed = (NegotiationDataset(table, tokenizer, text_rho=rho) for rho in (None, 0.5))
    assert np.array_equal(plain.rho, fixed.rho)
    assert len(set(plain.rho.tolist())) > 3
    texts = [[tokenizer.decode(d[i]["input_ids"]) for i in range(len(d))] for d in (plain, fixed)]
    begins = [{text[: text.index("<TURN>")] for text in some} for some in texts]
    assert len(begins[0]) > 3
    assert len(begins[1]) == 1
    assert "0.5000" in begins[1].pop()
    rest = [[text[text.index("<TURN>") :] for text in some] for some in texts]
    assert rest[0] == rest[1]


def test_games_beside_the_training_are_shown_the_same_text(training_data, tiny_base, tmp_path, monkeypatch):
    seen = []

    def watch(model, tokenizer, config, **options):
        seen.append(JanusAgent(Adapter(model, tokenizer, config)).text_rho)
        return evaluate_play(model, tokenizer, config, **options)

    monkeypatch.setattr(keeper, "evaluate_play", watch)
    options = {
        "max_steps": 1,
        "eval_every": 1,
        "play_games": 1,
        "rank": 2,
        "batch_size": 4,
        "grad_accum": 1,
        "quiet": True,
    }
    for text_rho in (None, 0.25):
        out = tmp_path / str(text_rho)
        train.run(train.Settings(training_data, out, model_name=str(tiny_base), text_rho=text_rho, **options))
    assert seen == [None, 0.25]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": "constant", "text_rho": 0.5}, "leave nothing that follows rho"),
        ({"gates": "constant", "lambda_sep": 0.1}, "need gates that follow rho"),
        ({"gates": "constant", "lambda_smooth": 0.1}, "need gates that follow rho"),
        ({"text_rho": 1.5}, "outside"),
    ],
)
def test_settings_of_training_that_contradict(training_data, tiny_base, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train.run(train.Settings(training_data, tmp_path / "out", model_name=str(tiny_base), quiet=True, **changes))
    assert not (tmp_path / "out").exists()


def test_a_plain_lora_resumes_exactly_and_its_gates_stay(training_data, tiny_base, tmp_path):
    def run(out, **changes):
        options = {"rank": 2, "batch_size": 4, "grad_accum": 1, "save_every": 2, "eval_every": 0, "quiet": True}
        options |= {"max_steps": 4, "gates": "constant", "lr": 3e-3, "warmup_steps": 1, "device": "cpu"}
        chosen = {**options, **changes}
        return train.run(train.Settings(training_data, tmp_path / out, model_name=str(tiny_base), **chosen))

    whole, moving = run("whole"), run("moving", gates="rho")
    resumed = run("resumed", resume=str(tmp_path / "whole/step-000002"))
    states = [read_state(path) for path in (whole, resumed, moving)]
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert has_constant_gates(load_hyperlora_adapter(resumed).model)


def test_a_dry_run_counts_what_trains(training_data, tiny_base, tmp_path, capsys):
    counts = {}
    for gates in ("rho", "constant"):
        chosen = {"rank": 2, "quiet": True, "json": True, "dry_run": True, "gates": gates}
        train.run(train.Settings(training_data, tmp_path / "never", model_name=str(tiny_base), **chosen))
        counts[gates] = json.loads(capsys.readouterr().out)["adapter_parameters"]
    assert 0 < counts["constant"] < counts["rho"]
