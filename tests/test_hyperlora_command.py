"""``python -m hyperlora``: what it writes plays the same games in other people's libraries; errors are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.models import logits
from safetensors.torch import load_file, save_file

import agents
from agents import JanusAgent
from bargain_env import RoutedPolicy, Seat, play, sample
from bargain_env.errors import InputError
from bargain_env.rho_grid import parse_grid, valid_rho
from hyperlora import Adapter, load_base, load_hyperlora_adapter, save_hyperlora_adapter
from hyperlora.__main__ import main
from hyperlora.base import nano_folder
from hyperlora.checkpoint import WEIGHTS
from hyperlora.export import EXPORT_RECORD, PEFT_WEIGHTS
from hyperlora.prompt import decision_prompt
from hyperlora.tokens import encode

ROOT = Path(__file__).parents[1]
OPPONENTS = ["boulware_firm", "linear_standard", "tit_for_tat"]
PRICES = [1400.0, 1000.0, 700.0, 500.0]


@pytest.fixture(scope="module")
def nano():
    return load_hyperlora_adapter("janus-nano")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "lora"
    main(["export", "janus-nano", "--rho", "0.3", "--out", str(folder), "--quiet"])
    return folder


def games_of(adapter, rho, seat=Seat.BUYER):
    """Six games against three scripts, the prompts saying ``rho``: what is exported has internal values."""
    rows = np.tile(np.arange(2), 3)
    scripts = [agents.make(name, assumed_zopa_width=500.0) for name in OPPONENTS]
    pair = (JanusAgent(adapter, rho=rho, raw_dial=True), RoutedPolicy(scripts, np.repeat(np.arange(3), 2)))
    return play(sample("paper", 2, seed=11).take(rows), *(pair if seat == Seat.BUYER else pair[::-1]))


def same_games(a, b):
    assert a.turns.sum() > 30
    for field in ("prices", "turns", "agreement", "rho"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.parametrize("seat", list(Seat))
def test_the_exported_adapter_plays_the_same_games_in_peft(nano, exported, seat):
    peft = pytest.importorskip("peft")
    base, tokenizer = load_base("janus-nano")
    loaded = Adapter(peft.PeftModel.from_pretrained(base, str(exported)).eval(), tokenizer, nano.config)
    live_games = games_of(nano, 0.3, seat)
    off = games_of(Adapter(load_base("janus-nano")[0], tokenizer, nano.config), 0.3, seat)
    assert not np.array_equal(off.prices, live_games.prices, equal_nan=True)
    same_games(games_of(loaded, 0.3, seat), live_games)


def test_peft_finds_the_base_by_itself_and_gives_the_same_logits(nano, exported):
    """To 1e-5 of the largest logit: those of the trained model reach 27, where one float32 rounding is already 2e-6."""
    peft = pytest.importorskip("peft")
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(str(exported)).eval()
    prompts = encode(
        nano.tokenizer, [decision_prompt(0.3, 3, 20, 900.0, ["seller"], [p], p, 200.0, 1500.0) for p in PRICES]
    )
    for prompt in prompts:
        x = torch.tensor([prompt])
        with torch.no_grad():
            theirs, live = loaded(x).logits, logits(nano.model, x, 0.3)
        scale = live.abs().max().item()
        assert (live - logits(nano.model, x, 0.8)).abs().max() > 0.01 * scale
        torch.testing.assert_close(theirs, live, atol=1e-5 * scale, rtol=0)
        torch.testing.assert_close(theirs.softmax(-1), live.softmax(-1), atol=1e-5, rtol=0)


def test_the_merged_folder_plays_the_same_games(nano, tmp_path, capsys):
    main(["merge", "janus-nano", "--rho", "0.3", "--out", str(tmp_path / "m")])
    said = capsys.readouterr().out
    assert f"wrote {tmp_path / 'm'}" in said
    assert f'AutoModelForCausalLM.from_pretrained("{tmp_path / "m"}")' in said
    model, tokenizer = load_base(str(tmp_path / "m"))
    same_games(games_of(Adapter(model, tokenizer, nano.config), 0.3), games_of(nano, 0.3))


def test_the_command_names_its_files_and_the_next_step(tmp_path, capsys):
    main(["export", "janus-nano", "--rho", "-1", "--out", str(tmp_path / "one")])
    said = capsys.readouterr().out
    for file in (tmp_path / "one").iterdir():
        assert file.name in said
    assert f'PeftModel.from_pretrained(base, "{tmp_path / "one"}")' in said
    main(["export", "janus-nano", "--grid=-0.0,0,0.5,1,1", "--out", str(tmp_path / "family"), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["rho"] == [0.0, 0.5, 1.0]
    assert printed["folders"] == [str(tmp_path / "family" / name) for name in ("rho-0.00", "rho-0.50", "rho-1.00")]
    records = [json.loads((Path(folder) / EXPORT_RECORD).read_text()) for folder in printed["folders"]]
    assert [record["rho"] for record in records] == printed["rho"]
    assert {record["adapter_digest"] for record in records} == {printed["adapter_digest"]}
    assert len({(Path(folder) / PEFT_WEIGHTS).read_bytes() for folder in printed["folders"]}) == 3


def test_the_base_can_be_named(nano, tmp_path):
    base = str(nano_folder() / "base")
    main(["export", "janus-nano", "--rho", "0.3", "--out", str(tmp_path / "x"), "--base", base, "--quiet"])
    assert (tmp_path / "x" / PEFT_WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "janus-nano", "--out", "OUT"], "--rho, one value, or --grid"),
        (["export", "janus-nano", "--rho", "0.1", "--grid", "0,1", "--out", "OUT"], "--rho, one value, or --grid"),
        (["export", "janus-nano", "--rho", "1.1", "--out", "OUT"], "choose another --rho"),
        (["export", "janus-nano", "--rho", "much", "--out", "OUT"], "not one number"),
        (["export", "janus-nano", "--rho", "nan", "--out", "OUT"], "outside"),
        (["export", "janus-nano", "--grid", "1:0:0.1", "--out", "OUT"], "--grid '1:0:0.1' is an empty range"),
        (["export", "janus-nano", "--grid", "0.2,2", "--out", "OUT"], "choose another --grid"),
        (["export", "janus-nano", "--rho", "0.1"], "--out"),
        (["export", "nowhere", "--rho", "0.1", "--out", "OUT"], "no adapter in nowhere"),
        (["export", "EXPORT", "--rho", "0.1", "--out", "OUT"], "not the config of a HyperLoRA adapter"),
        (["export", "janus-nano", "--rho", "0.1", "--out", "OUT", "--base", "not/a/base"], "not/a/base"),
        (["export", "janus-nano", "--rho", "0.1", "--out", "MINE"], "would be lost"),
        (["merge", "janus-nano", "--rho", "0.1", "--out", "MINE"], "would be lost"),
        (["merge", "janus-nano", "--out", "OUT"], "--rho"),
        (["merge", "janus-nano", "--rho", "2", "--out", "OUT"], "choose another --rho"),
        (["merge", "janus-nano", "--rho", "0.2", "--out", "OUT", "--dtype", "int8"], "--dtype"),
        (["weigh", "janus-nano"], "weigh"),
    ],
)
def test_one_line_and_exit_2(arguments, message, exported, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "adapter_config.json").write_text("mine")
    places = {"OUT": str(tmp_path / "out"), "MINE": str(tmp_path / "mine"), "EXPORT": str(exported)}
    with pytest.raises(SystemExit) as stop:
        main([places.get(argument, argument) for argument in arguments])
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "adapter_config.json"]


def test_broken_weights_are_one_line(nano, tmp_path, capsys):
    folder = save_hyperlora_adapter(nano.model, nano.tokenizer, tmp_path / "nan")
    state = load_file(folder / WEIGHTS)
    state[next(name for name in state if name.endswith("lora_A"))][0, 0] = float("nan")
    save_file(state, folder / WEIGHTS)
    with pytest.raises(SystemExit):
        main(["export", str(folder), "--rho", "0.5", "--out", str(tmp_path / "x")])
    assert "NaN" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "hyperlora", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "python -m hyperlora" in done.stdout
    assert {"export", "merge"} <= set(done.stdout.split())


def test_rho_grids():
    assert parse_grid("0:1:0.25") == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert parse_grid("0.2,0.8,-1") == [0.2, 0.8, -1.0]
    assert valid_rho(torch.tensor([[0.25]])) == valid_rho("0.25") == 0.25
    for text, message in (
        ("a,b", "neither"), ("0:1", "neither"), ("0:1:0", "empty"), ("0:1:1e-6", "larger step"), ("0,7", "outside"),
        ("nan", "outside"), ("0:inf:0.1", "empty"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"--grid.*{message}|{message}.*--grid"):
            parse_grid(text, "--grid")
