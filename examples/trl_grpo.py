"""TRL's GRPO teaches a chat model to buy by calling tools: every offer is a tool call, answered by a scripted seller.

Install with `pip install -e '.[export]' -c constraints.txt`.

    python examples/trl_grpo.py        # 60 s on one core, 35 of them to make the toy
    toy of 201,504 parameters; imitates tool calls with loss 0.515
    step  1: reward -0.321, calls a game 2.03, failed calls 0.0%
    …
    step 10: reward -0.006, calls a game 2.19, failed calls 0.0%

With `--model Qwen/Qwen3-0.6B`, or whatever else has a chat template that can call tools, that model is trained, which wants
a GPU and more steps. Without, a toy of 0.2 M parameters is made here: its words are those of some scripted games, on which
it first learns to write tool calls at all. It shows that everything fits together, not how well a model can haggle.
"""

import argparse
import random
import re
from functools import partial

import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from agents.trl import BargainTools, tasks, utility_reward

GAME = {"opponent": ["linear_standard", "boulware_conceding"], "max_turns": 6}
STEPS, ROLLOUTS, WARM_STEPS = 10, 8, 120

# What a large model would bring along: a template that writes tool calls and their answers, and how to read them back.

TEMPLATE = (
    "{%- for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{%- for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{%- endfor %}<|end|>{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{%- endif %}"
)
CALLS = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "tool_calls": {
            "open": "<call>",
            "close_pattern": "</call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|end\|>", "content": "text"},
    },
}
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|tool|>", "<call>", "</call>"]
JSON = r'\{"name": "|", "arguments": \{|"price": |\}\}'
PIECE = (
    rf"<\|?\w+\|?>|</call>|{JSON}|\d|[A-Za-z]+|[^A-Za-z\d]"  # a marker, some JSON, a digit, a word, any other character
)


def scripted_game(row: dict) -> list[dict]:
    """A conversation in which the model's side makes two or three haphazard offers and then accepts."""
    table, chance = BargainTools(**GAME), random.Random(row["game"])
    messages = [{"role": "user", "content": row["prompt"][0]["content"] + table.reset(**row)}]
    low, high = 250, int(table.scenario.buyer_max)
    while not table.over:
        offers = "offers" in messages[-1]["content"]
        if offers and chance.random() < 0.3:
            name, arguments, told = "accept", {}, table.accept()
        else:
            price = chance.randrange(low, high)
            name, arguments, told = "offer", {"price": price}, table.offer(price)
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": name, "content": told},
        ]
    return [*messages, {"role": "assistant", "content": "done"}]


def tokenizer_of(pieces: list[str]) -> PreTrainedTokenizerFast:
    """Whole words, digits and markers as tokens; joined they give the text back."""
    words = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token=SPECIAL[0]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Split(Regex(PIECE), "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token=SPECIAL[0], eos_token=SPECIAL[1])
    tokenizer.chat_template, tokenizer.response_template, tokenizer.padding_side = TEMPLATE, CALLS, "left"
    return tokenizer


def toy(games: list[list[dict]]) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """A small untrained model and its tokenizer, which knows the words of ``games``."""
    texts = [tokenizer_of(SPECIAL).apply_chat_template(game, tokenize=False) for game in games]
    known = {piece for text in texts for piece in re.findall(PIECE, text)} | set("0123456789")
    tokenizer = tokenizer_of([*SPECIAL, *sorted(known - set(SPECIAL))])
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return model, tokenizer


def own_words(ids: torch.Tensor) -> torch.Tensor:
    """``ids`` where the model speaks, -100 elsewhere."""
    speakers = torch.tensor([SPECIAL.index(f"<|{role}|>") for role in ("user", "assistant", "tool")])
    begins = torch.isin(ids, speakers)
    speaker = ids.gather(1, (torch.arange(ids.shape[1]) * begins).cummax(dim=1).values)
    return ids.masked_fill((speaker != speakers[1]) | begins | (ids == SPECIAL.index("<|pad|>")), -100)


def warm_up(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, games: list[list[dict]]) -> float:
    """Let the toy imitate ``games``; returns its last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(WARM_STEPS):
        batch = [games[(16 * step + i) % len(games)] for i in range(16)]
        texts = [tokenizer.apply_chat_template(game, tokenize=False) for game in batch]
        given = tokenizer(texts, return_tensors="pt", padding=True)
        loss = model(**given, labels=own_words(given["input_ids"])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def main(model_name: str | None, steps: int, seed: int, out: str) -> None:
    """Train, and say what the rewards were."""
    torch.set_num_threads(1)
    model, tokenizer = model_name, None
    if model_name is None:
        games = [scripted_game(row) for row in tasks(400, seed=seed + 1)]
        model, tokenizer = toy(games)
        loss = warm_up(model, tokenizer, games)
        print(f"toy of {model.num_parameters():,} parameters; imitates tool calls with loss {loss:.3f}")
    trainer = GRPOTrainer(
        model,
        reward_funcs=utility_reward,
        args=GRPOConfig(
            output_dir=out,
            max_steps=steps,
            per_device_train_batch_size=4 * ROLLOUTS,
            num_generations=ROLLOUTS,
            max_completion_length=240,
            learning_rate=2e-4 if model_name is None else 1e-6,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=model_name is None,
            seed=seed,
        ),
        train_dataset=Dataset.from_list(tasks(256, seed=seed)),
        processing_class=tokenizer,
        environment_factory=partial(BargainTools, **GAME),
    )
    trainer.train()
    for entry in trainer.state.log_history[:-1]:
        print(
            f"step {entry['step']:2d}: reward {entry['reward']:+.3f}, calls a game {entry['tools/call_frequency']:.2f}, "
            f"failed calls {entry['tools/failure_frequency']:.1%}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", dest="model_name")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/trl_grpo")
    main(**vars(parser.parse_args()))
