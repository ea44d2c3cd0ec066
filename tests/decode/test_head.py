"""Legal rows of the head give what the whole head gives, or the whole head is taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hyperlora import inject_hyperlora
from hyperlora.base import nano_model
from hyperlora.decode import Scorer
from hyperlora.decode.head import LegalHead
from hyperlora.token_rows import add_token_rows

from .conftest import awake

RHO = np.array([0.1, 0.5, 0.9])
ANY = np.ones(3, dtype=bool)


class Scaled(nn.Module):
    """A causal LM that changes its logits after the head, as some families do."""

    def __init__(self, inner, change):
        super().__init__()
        self.inner, self.change = inner, change

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args, **kwargs):
        out = self.inner(*args, **kwargs)
        out.logits = self.change(out.logits)
        return out


def bias_head(model):
    head = model.get_output_embeddings()
    model.set_output_embeddings(nn.Linear(head.in_features, head.out_features))
    return model


CASES = {
    "plain": (awake, True),
    "a bias": (lambda: bias_head(awake()), True),
    "without an adapter": (lambda: nano_model(hidden=16, layers=1, heads=2, intermediate=16), True),
    "an adapted head": (
        lambda: inject_hyperlora(
            bias_head(nano_model(hidden=16, layers=1, heads=2)), target_modules=("lm_head", "q_proj")
        ),
        False,
    ),
    "scaled logits": (lambda: Scaled(awake(), lambda x: x / 16), False),
    "capped logits": (lambda: Scaled(awake(), lambda x: 30 * torch.tanh(x / 30)), False),
}


def with_head_rows():
    model = awake()
    add_token_rows(model, range(131, 136), head=True)
    return model


CASES["rows for new tokens"] = (with_head_rows, False)


@pytest.fixture(params=CASES)
def case(request):
    made, plain = CASES[request.param]
    return made(), plain


@pytest.mark.parametrize("mode", ["mean", "greedy"])
def test_rows_of_the_head_give_what_the_head_gives(case, tokenizer, prompts, mode):
    model, plain = case
    ids, rho = prompts(3), RHO if hasattr(model, "hyperlora_binding") else None
    scorer, whole = Scorer(model, tokenizer, mode), Scorer(model, tokenizer, mode)
    whole.head.plain = False
    found, expected = scorer.decide(ids, rho, ANY), whole.decide(ids, rho, ANY)
    assert scorer.head.plain is plain
    np.testing.assert_allclose(found.log_accept, expected.log_accept, atol=1e-6)
    np.testing.assert_allclose(found.price, expected.price, atol=1e-6)


def test_logits_of_few_tokens(tokenizer, prompts):
    model = awake()
    head, ids = LegalHead(model), torch.tensor(prompts(1))
    tokens = torch.tensor([3, 77, 20])
    with torch.inference_mode(), head.bound(np.array([0.3])):
        full = model(input_ids=ids).logits
        head.plain = True
        few = head.logits(head.states(4, input_ids=ids), tokens)
    assert few.shape == (1, 4, 3)
    torch.testing.assert_close(few, full[:, -4:][..., tokens], atol=1e-5, rtol=1e-6)


def test_the_two_ways_differ_where_logits_are_scaled(tokenizer, prompts):
    """What the try is for: without it the rows would be believed."""
    model = Scaled(awake(), lambda x: x / 16)
    tried, believed = Scorer(model, tokenizer, "mean"), Scorer(model, tokenizer, "mean")
    believed.head.plain = True
    right, wrong = (s.decide(prompts(3), RHO, ANY) for s in (tried, believed))
    assert np.abs(right.log_accept - wrong.log_accept).max() > 0.1


def test_the_try_leaves_rho_and_is_made_once(tokenizer, prompts):
    model = awake()
    model.current_rho = torch.tensor([[0.25]])
    scorer = Scorer(model, tokenizer, "greedy")
    scorer.decide(prompts(2), RHO[:2], ANY[:2])
    assert model.current_rho.item() == 0.25
    scorer.head._agrees = lambda ids: pytest.fail("tried again")
    scorer.decide(prompts(2), RHO[:2], ANY[:2])
