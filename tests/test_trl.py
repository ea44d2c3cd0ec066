"""TRL itself: GRPO finds the tools and plays whole games, SFT takes the exported texts. No model hub is asked.

Where the check ends: the toy's tokenizer, chat template and response template are our own (`examples/trl_grpo.py`), so that
a hub model's template works is left to TRL's own tests.
"""

import copy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from agents.trl import BargainTools, settlement_reward, tasks, utility_reward
from bargain_env import Seat

pytest.importorskip("trl", reason="TRL is an extra: pip install -e '.[export]' -c constraints.txt")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        yield


@pytest.fixture(scope="module")
def made(quiet):
    """The example, and its toy model without any training; nobody may change them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        import trl_grpo

        games = [trl_grpo.scripted_game(row) for row in tasks(40, seed=1)]
        yield trl_grpo, games, *trl_grpo.toy(games)


@pytest.fixture
def toy(made):
    """`made`, with a model and a tokenizer to change."""
    module, games, model, tokenizer = made
    return module, games, copy.deepcopy(model), copy.deepcopy(tokenizer)


def trainer_of(toy, tmp_path, opponent="linear_standard", reward=utility_reward, rows=None):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    _, _, model, tokenizer = toy
    options = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 300, "max_steps": 1}
    return GRPOTrainer(
        model,
        reward_funcs=reward,
        args=GRPOConfig(output_dir=str(tmp_path), report_to="none", save_strategy="no", use_cpu=True, **options),
        train_dataset=Dataset.from_list(rows or tasks(8, seed=0)),
        processing_class=tokenizer,
        environment_factory=partial(BargainTools, opponent=opponent, max_turns=6),
    )


def test_trl_finds_the_two_tools_and_their_schemas(toy, tmp_path):
    from transformers.utils import get_json_schema

    tools = {tool.__name__: get_json_schema(tool)["function"] for tool in trainer_of(toy, tmp_path).tools}
    assert set(tools) == {"accept", "offer"}
    assert tools["accept"]["parameters"] == {"type": "object", "properties": {}}
    price = tools["offer"]["parameters"]
    assert price["required"] == ["price"]
    assert price["properties"]["price"]["type"] == "number"
    assert "dollars" in price["properties"]["price"]["description"]
    assert all("Returns" not in tool["description"] for tool in tools.values())


def test_a_chat_template_that_calls_no_tools_is_refused(toy, tmp_path):
    toy[3].chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(ValueError, match="does not support tool calling"):
        trainer_of(toy, tmp_path)


def test_grpo_plays_whole_games_with_a_model_that_calls(toy, tmp_path, monkeypatch):
    """All of TRL's loop but the sampling: what the model would write is written for it."""
    trainer = trainer_of(toy, tmp_path, reward=[utility_reward, settlement_reward], rows=tasks(8, seed=0, rho=(0.3,)))
    answers = ['<call>{"name": "offer", "arguments": {"price": 640}}</call><|end|>'] * 2
    answers += ['<call>{"name": "accept", "arguments": {}}</call><|end|>', "done<|end|>"]
    tokenizer, written, games = toy[3], [], []

    def generate(prompts, *_, **__):
        turn = len(written)
        written.append(len(prompts))
        ids = tokenizer(answers[turn])["input_ids"]
        return [list(ids) for _ in prompts], None

    def remember(environments, **columns):
        games.extend((one.state, one.scenario, one.utility, one.rho) for one in environments)
        return utility_reward(environments)

    monkeypatch.setattr(trainer, "_generate_single_turn", generate)
    trainer.reward_funcs[0] = remember
    trainer.train()
    assert written == [4, 4, 4, 4]
    assert len(games) == 4
    assert games[0] == games[1] == games[2] == games[3]
    state, scenario, utility, rho = games[0]
    assert state.agreement
    mine = 0 if scenario.starter == Seat.BUYER else 1
    assert state.prices[mine::2][:2] == (640.0, 640.0)
    (told,) = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert told["tools/call_frequency"] == 3.0
    assert told["tools/failure_frequency"] == 0.0
    assert told["reward"] == pytest.approx(utility + max(0.0, 1.0 - abs(rho - 0.3)), rel=1e-5)


def test_the_example_warms_up_its_toy(toy, monkeypatch):
    module, games, model, tokenizer = toy
    import torch

    texts = [tokenizer.apply_chat_template(game, tokenize=False) for game in games[:8]]
    ids = tokenizer(texts, return_tensors="pt", padding=True)["input_ids"]
    assert [tokenizer.decode(row).replace("<|pad|>", "") for row in ids] == texts
    own = module.own_words(ids)
    for row, game in zip(own, games, strict=False):
        said = tokenizer.decode(row[row != -100])
        assert said.count("<call>") == sum(bool(m.get("tool_calls")) for m in game)
        assert "offers" not in said
    torch.manual_seed(0)
    monkeypatch.setattr(module, "WARM_STEPS", 1)
    first = module.warm_up(model, tokenizer, games)
    monkeypatch.setattr(module, "WARM_STEPS", 6)
    assert module.warm_up(model, tokenizer, games) < 0.8 * first


@pytest.mark.slow
def test_the_example_runs(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "trl_grpo.py"), "--steps", "3", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(lines) == 3
    assert any(float(line.split("calls a game ")[1].split(",")[0]) > 1.0 for line in lines)


def test_sft_takes_the_exported_prompts(toy, tmp_path):
    import datasets
    from exported import ready
    from trl import SFTConfig, SFTTrainer

    from experiments import export

    data = ready(tmp_path, episodes=40)
    export.run(export.Settings(data=data, to="trl", out=tmp_path / "texts", quiet=True))
    found = datasets.load_dataset(str(tmp_path / "texts"), split="train", cache_dir=str(tmp_path / "cache"))
    args = SFTConfig(output_dir=str(tmp_path / "sft"), max_steps=1, report_to="none", save_strategy="no", use_cpu=True)
    trainer = SFTTrainer(toy[2], args=args, train_dataset=found.select(range(16)), processing_class=toy[3])
    row = trainer.train_dataset[0]
    ids, learned = row["input_ids"], [i for i in row["labels"] if i != -100]
    tokenizer = toy[3]
    assert learned == tokenizer(found[0]["completion"])["input_ids"] + [tokenizer.eos_token_id]
    assert ids == tokenizer(found[0]["prompt"])["input_ids"] + learned
    trainer.train()
