"""New tokens in rows of our own, on the way in and on the way out, beside tables that nobody touches."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen2Model

from bargain_env.errors import InputError
from hyperlora import bind_rho
from hyperlora.identity import base_digest
from hyperlora.inject import HyperLoRASettings, adapter_parameters, inject_hyperlora
from hyperlora.losses import target_loss
from hyperlora.token_rows import HeadRows, TokenRows, add_token_rows, fresh_rows

from .models import KINDS, awake, tiny

ROWS = 131
"""Of the tables of the tiny models; qwen2 ties its head to its embedding, llama does not."""
PLACES = {"inside": range(100, 105), "across": range(128, 134), "beyond": range(131, 136)}
SMALL = HyperLoRASettings(rank=2, alpha=4.0, dropout=0.0, hyper_hidden=4)


def known(batch: int = 2, length: int = 9) -> torch.Tensor:
    """Ids below every new one."""
    return torch.randint(14, 100, (batch, length), generator=torch.Generator().manual_seed(3))


def with_new(new: range) -> torch.Tensor:
    """`known` with the first and the last new token in each row."""
    x = known()
    x[:, 2], x[:, 5] = new[0], new[-1]
    return x


def forward(model, x, **options) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=x, **options).logits


# --- the base's tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_tables_stay_the_same_objects_with_the_same_bytes(kind, head, place):
    model = tiny(kind)
    table, out = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    copies, digest = (table.detach().clone(), out.detach().clone()), base_digest(model)
    add_token_rows(model, PLACES[place], head=head)
    model(with_new(PLACES[place])).logits.sum().backward()
    assert model.get_input_embeddings().weight is table
    assert model.get_output_embeddings().weight is out
    assert torch.equal(table, copies[0])
    assert torch.equal(out, copies[1])
    assert base_digest(model) == digest
    with torch.no_grad():
        table[7] += 1.0
    assert base_digest(model) != digest


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_library_may_tie_its_weights_again(kind, head):
    model, x = tiny(kind), with_new(PLACES["beyond"])
    add_token_rows(model, PLACES["beyond"], head=head)
    before, names = forward(model, x), [name for name, _ in model.named_parameters()]
    model.tie_weights()
    assert torch.equal(forward(model, x), before)
    assert [name for name, _ in model.named_parameters()] == names
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert shared == (kind == "qwen2")


# --- on the way in -------------------------------------------------------------------------------------------------


def test_known_tokens_keep_their_vectors_and_new_ones_get_rows():
    model, new = tiny(), PLACES["inside"]
    table = model.get_input_embeddings()
    x = torch.arange(new[0], new[-1] + 1).unsqueeze(0)
    mixed = torch.cat([known(1, 6), x], dim=1)
    add_token_rows(model, new)
    rows = model.get_input_embeddings()
    assert not torch.equal(rows(x), table(x))
    assert torch.equal(rows(mixed)[0, :6], table(mixed)[0, :6])
    assert torch.equal(rows(mixed)[0, 6:], rows.rows)


def test_only_rows_that_occur_get_a_gradient():
    model, new = tiny(), PLACES["beyond"]
    inject_hyperlora(model)
    add_token_rows(model, new)
    x = known()
    x[0, 3], x[1, 6] = new[1], new[3]
    with bind_rho(model, 0.5):
        model(x).logits.square().sum().backward()
    grad = model.get_input_embeddings().rows.grad
    assert [bool(row.abs().max() > 0) for row in grad] == [False, True, False, True, False]


def test_an_id_beyond_the_rows_is_an_error_not_another_token():
    model, new = tiny(), PLACES["inside"]
    add_token_rows(model, new)
    forward(model, with_new(new))
    for unknown in (new[-1] + 1, ROWS + 40):
        x = known()
        x[1, 4] = unknown
        with pytest.raises(IndexError, match=rf"token id {unknown} has no embedding.*tokenizer"):
            model(x)
    with pytest.raises(IndexError):
        model(known() - 1000)


def test_the_lookup_itself_stops_at_such_an_id(monkeypatch):
    """What guards an accelerator, where the ids are not looked at first."""
    model, new = tiny(), PLACES["inside"]
    add_token_rows(model, new)
    monkeypatch.setattr(TokenRows, "_refuse_unknown", lambda self, ids: None)
    forward(model, with_new(new))
    with pytest.raises(IndexError, match="index out of range"):
        model(torch.full((1, 3), new[-1] + 1))


def test_fresh_rows_are_a_function_of_the_base_alone():
    torch.manual_seed(1)
    one = fresh_rows(tiny().get_input_embeddings().weight, 4)
    torch.manual_seed(2)
    weight = tiny().get_input_embeddings().weight
    assert torch.equal(fresh_rows(weight, 4), one)
    assert not torch.equal(fresh_rows(weight * 2, 4), one)
    mean, spread = weight.detach().mean(dim=0), weight.detach().std(dim=0)
    noise = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one, mean + 0.1 * spread * noise, atol=1e-6, rtol=0)
    assert (one[0] - one[1]).abs().max() > 1e-3


# --- on the way out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_new_columns_are_ours_and_the_others_the_base_s(kind, place):
    new, x = PLACES[place], known()
    model = tiny(kind)
    before = forward(model, x)
    add_token_rows(model, new, head=True)
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.rows.mul_(3.0)
        hidden = model.model(x).last_hidden_state
    after = forward(model, x)
    assert after.shape[-1] == max(ROWS, new[-1] + 1) == model.config.vocab_size == head.out_features
    old = [i for i in range(ROWS) if i not in new]
    inside = [i for i in new if i < ROWS]
    assert not inside or (after[..., inside] - before[..., inside]).abs().max() > 1e-3
    assert torch.equal(after[..., old], before[..., old])
    expected = torch.einsum("bsd,nd->bsn", hidden, head.rows.detach())
    torch.testing.assert_close(after[..., list(new)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "tied"), [("qwen2", True), ("llama", False)])
def test_the_head_shares_the_embedding_s_rows_where_the_base_ties_them(kind, tied):
    model, new = tiny(kind), PLACES["beyond"]
    inject_hyperlora(model)
    add_token_rows(model, new, head=True)
    rows, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(rows, TokenRows)
    assert isinstance(head, HeadRows)
    assert (head.rows is rows.rows) == tied
    ours = adapter_parameters(model)
    assert "model.embed_tokens.rows" in ours
    assert ("lm_head.rows" in ours) == (not tied)
    assert set(ours) == {name for name, p in model.named_parameters() if p.requires_grad}
    with bind_rho(model, 0.5):
        model(known()).logits.square().sum().backward()
    assert head.rows.grad.abs().amax(dim=1).min() > 0
    assert bool(rows.rows.grad.abs().max() > 0) == tied
    twin = copy.deepcopy(model)
    assert (twin.get_output_embeddings().rows is twin.get_input_embeddings().rows) == tied


@pytest.mark.parametrize("kind", KINDS)
def test_logits_at_chosen_positions_and_the_library_s_own_loss(kind):
    model, new = tiny(kind), PLACES["beyond"]
    add_token_rows(model, new, head=True)
    x = with_new(new)
    full, keep = forward(model, x), torch.zeros_like(x, dtype=torch.bool)
    keep[0, 3], keep[1, 1:4] = True, True
    assert (full[:, -2] - full[:, -1]).abs().max() > 1e-3
    torch.testing.assert_close(forward(model, x, logits_to_keep=2), full[:, -2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        forward(model, x, logits_to_keep=keep).view(-1, full.shape[-1]), full[keep], atol=1e-5, rtol=0
    )
    labels = x.clone()
    labels[:, :4] = -100
    expected = F.cross_entropy(full[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=x, labels=labels).loss, expected, atol=1e-5, rtol=0)
        total, count = target_loss(model, x, labels)
    torch.testing.assert_close(total / count, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_generate_writes_new_tokens_and_reads_them_back(kind):
    model, new, x = tiny(kind), PLACES["beyond"], known(2, 6)
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    plain = model.generate(x, **options)
    add_token_rows(model, new, head=True)
    with torch.no_grad():  # along what the model computes there, so that it wins
        model.get_output_embeddings().rows[2] = 50.0 * model.model(x[:1]).last_hidden_state[0, -1]
    written = model.generate(x, **options)
    beams = model.generate(x, num_beams=3, **options)
    assert plain.max() < ROWS
    assert written[0, 6] == new[2]
    assert beams.shape == written.shape
    again = forward(model, written)
    assert torch.equal(again[0, 6:-1].argmax(-1), written[0, 7:])
    other = written.clone()
    other[0, 6] = new[0]
    assert (forward(model, other)[0, 6] - again[0, 6]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_no_gradient(kind):
    new, grads = PLACES["beyond"], []
    for checkpointing in (False, True):
        model = awake(inject_hyperlora(tiny(kind), rank=4, dropout=0.0))
        add_token_rows(model, new, head=True)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        with bind_rho(model, torch.tensor([[0.2], [0.9]])):
            target_loss(model, with_new(new), with_new(new))[0].backward()
        grads.append({name: p.grad for name, p in adapter_parameters(model).items()})
    assert grads[0]["model.embed_tokens.rows"].abs().max() > 0
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-7, rtol=0)


def test_rows_keep_their_precision_on_a_half_precision_base():
    model = tiny().to(torch.bfloat16)
    add_token_rows(model, PLACES["beyond"], head=True)
    assert model.get_input_embeddings().rows.dtype == torch.float32
    assert forward(model, with_new(PLACES["beyond"])).dtype == torch.bfloat16


def test_rows_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="not consecutive"):
        add_token_rows(tiny(), [100, 102])
    model = tiny()
    add_token_rows(model, [])
    assert isinstance(model.get_input_embeddings(), nn.Embedding)
    add_token_rows(model, [131])
    with pytest.raises(InputError, match="already has rows"):
        add_token_rows(model, [132])
    with pytest.raises(InputError, match="begin at 136 but the head ends at 131"):
        add_token_rows(tiny(), [136], head=True)
    with pytest.raises(InputError, match="Qwen2Model has no output head"):
        add_token_rows(Qwen2Model(tiny().config), [131], head=True)


def test_rows_fit_beside_an_adapted_head():
    model = inject_hyperlora(tiny("llama"), rank=4, target_modules=["q_proj", "lm_head"])
    before = forward(model, known())
    add_token_rows(model, PLACES["beyond"], head=True)
    assert torch.equal(forward(model, known())[..., :ROWS], before)
    assert "lm_head.base.lora_A" in adapter_parameters(model)
