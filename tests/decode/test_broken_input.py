"""Models that give no probabilities: the prompt is named, and no decision is made up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bargain_env.errors import InputError
from hyperlora.base import nano_model
from hyperlora.decode import Scorer
from hyperlora.inject import adapter_modules, adapter_parameters

from .conftest import awake

MODES = ["greedy", "mean", "sample", "median"]


def decide(model, tokenizer, prompts, mode, rho=None, **options):
    count = len(prompts)
    rho = np.linspace(0, 1, count) if rho is None else rho
    return Scorer(model, tokenizer, mode, **options).decide(
        prompts, rho, np.ones(count, dtype=bool), np.full((count, 32), 0.5)
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_broken_adapter_is_found_out(tokenizer, prompts, mode):
    model = awake()
    assert np.isfinite(decide(model, tokenizer, prompts(3), mode).price).all()
    with torch.no_grad():
        next(layer for _, layer in adapter_modules(model)).lora_B[0, 0] = torch.nan
    with pytest.raises(
        InputError, match=r"NaN or infinity instead of logits for prompt 0 of 3 \(rho 0, '<RHO> 0\.0000"
    ):
        decide(model, tokenizer, prompts(3), mode)


def poisoned(model, token, value=torch.nan):
    """``model`` with one row of its embedding broken: whoever reads the token, and whoever is asked about it."""
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = value
    return model


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"batch_size": 1}])
def test_the_prompt_is_named(tokenizer, prompts, options):
    """Only the third prompt holds the broken token, which is no part of an answer."""
    ids = prompts(4)
    model = poisoned(awake(), 99)
    ids[2] = [*ids[2][:9], 99, *ids[2][9:]]
    with pytest.raises(InputError, match=r"for prompt 2 of 4 .rho 0.666667"):
        decide(model, tokenizer, ids, "mean", **options)
    with pytest.raises(InputError, match=r"for prompt 1 of 2 .rho 1"):
        decide(model, tokenizer, [ids[0], ids[2]], "greedy", **options)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_broken_row_of_the_head(tokenizer, prompts, value):
    model = nano_model(hidden=32, layers=1, heads=2)
    model.set_output_embeddings(torch.nn.Linear(32, 131, bias=True))
    with torch.no_grad():
        model.get_output_embeddings().bias[tokenizer.convert_tokens_to_ids("7")] = value
    for plain in (True, False):
        scorer = Scorer(model, tokenizer, "mean")
        scorer.head.plain = plain
        with pytest.raises(InputError, match="rho off"):
            scorer.decide(prompts(2), None, np.ones(2, dtype=bool))


def test_an_impossible_token_is_no_error(tokenizer, prompts):
    """-∞ is a probability of 0; only where nothing is left it is none."""
    model = nano_model(hidden=32, layers=1, heads=2)
    model.set_output_embeddings(torch.nn.Linear(32, 131, bias=True))
    digits = tokenizer.convert_tokens_to_ids(list("0123456789"))
    with torch.no_grad():
        model.get_output_embeddings().bias[digits[7]] = -torch.inf
    (found,) = Scorer(model, tokenizer).distribution(prompts(1), None, np.ones(1, dtype=bool), levels=3, width=1000)
    assert found.probability.sum() == pytest.approx(1.0)
    assert len(found.price) == 9**4 + 1
    with torch.no_grad():
        model.get_output_embeddings().bias[digits] = -torch.inf
    with pytest.raises(InputError, match="NaN or infinity"):
        Scorer(model, tokenizer).decide(prompts(1), None, np.ones(1, dtype=bool))


def test_rows_that_leave_the_batch_do_not_shift_the_name(tokenizer, prompts):
    """The last prompt's price breaks once its digits are fed; the others accept and are gone by then."""
    model, ids = awake(), prompts(4)
    scorer = Scorer(model, tokenizer, "mean")
    scorer._accepts = lambda tree, root, some: np.array([len(p) < len(ids[3]) for p in some.prompts])
    states, passes = scorer.head.states, []

    def break_late(keep, **inputs):
        passes.append(len(inputs["input_ids"]))
        found = states(keep, **inputs)
        return found * torch.nan if len(passes) == 2 else found

    scorer.head.states = break_late
    with pytest.raises(InputError, match="for prompt 3 of 4"):
        scorer.decide(ids, np.linspace(0, 1, 4), np.ones(4, dtype=bool), offers=False)
    assert passes == [4, 1]


def test_nothing_stays_bound_after_an_error(tokenizer, prompts):
    model = awake()
    model.current_rho = torch.tensor([[0.25]])
    gate = next(name for name in adapter_parameters(model) if "hyper_net" in name)
    with torch.no_grad():
        adapter_parameters(model)[gate].fill_(torch.nan)
    with pytest.raises(InputError, match="NaN"):
        decide(model, tokenizer, prompts(2), "mean")
    assert model.current_rho.item() == 0.25
    assert not torch.is_inference_mode_enabled()
