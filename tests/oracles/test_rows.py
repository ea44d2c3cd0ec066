"""Adapters per row: equal to the same adapters one at a time, to merged weights, and to PEFT."""

import copy
import gc
import threading

import pytest
import torch

from bargain_env.errors import InputError
from hyperlora import bind_rho, inject_hyperlora
from hyperlora.adapters.peft_folder import LoRA
from hyperlora.adapters.rows import bind_adapters, inject_rows, row_layers, stack_adapters

from .models import ATOL, KINDS, awake, ids, tiny


def drawn(model, count=3, rank=4, seed=0, only=None):
    """Weights of ``count`` adapters for every layer of a model that takes them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.empty(shape).normal_(0.0, 0.2, generator=generator)

    layers = {name: layer for name, layer in row_layers(model).items() if only is None or only in name}
    return {
        name: (normal(count, rank, layer.in_features), normal(count, layer.out_features, rank))
        for name, layer in layers.items()
    }


def one(weights, i):
    return {name: (a[i], b[i]) for name, (a, b) in weights.items()}


@torch.no_grad()
def merged(kind, weights, i, scaling=1.0):
    """A bare model with one of the adapters in its weights."""
    model = tiny(kind)
    for name, (a, b) in weights.items():
        model.get_submodule(name).weight += scaling * (b[i] @ a[i])
    return model


@torch.no_grad()
def run(model, x):
    return model(x).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_injection_is_the_base_bit_for_bit(kind):
    model, x = inject_rows(tiny(kind)), ids()
    assert torch.equal(run(model, x), run(tiny(kind), x))
    weights = drawn(model)
    with bind_adapters(model, weights, [-1, -1, -1]):
        assert torch.equal(run(model, x), run(tiny(kind), x))
    with bind_adapters(model, {}, -1):
        assert torch.equal(run(model, x), run(tiny(kind), x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "rows", [[0, 1, 2], [0, 0, 1, 1, 2, 2], [2, 0, 1, 0], [1, 1, 1], [1, -1, 0, -1], [-1, 2], 1, [2]]
)
@pytest.mark.parametrize("scaling", [2.0, [0.5, 1.0, 3.0]])
def test_each_row_is_what_merged_weights_give(kind, rows, scaling):
    model = inject_rows(tiny(kind))
    weights, numbers = drawn(model), rows if isinstance(rows, list) else [rows]
    x = ids(len(numbers) if len(numbers) > 1 else 4)
    with bind_adapters(model, weights, rows, scaling):
        ours = run(model, x)
    plain = run(tiny(kind), x)
    for b in range(len(x)):
        i = numbers[b] if len(numbers) > 1 else numbers[0]
        if i < 0:
            assert torch.allclose(ours[b], plain[b], atol=1e-6)
            continue
        scale = scaling[i] if isinstance(scaling, list) else scaling
        assert (ours[b] - plain[b]).abs().max() > 0.01, "the adapter does something"
        assert torch.allclose(ours[b], run(merged(kind, weights, i, scale), x[b : b + 1])[0], atol=ATOL)


def test_rows_without_an_adapter_do_not_see_a_broken_neighbour():
    model, x = inject_rows(tiny()), ids(2)
    weights = {name: (a * float("nan"), b) for name, (a, b) in drawn(model).items()}
    with bind_adapters(model, weights, [0, -1]):
        logits = run(model, x)
    assert logits[0].isnan().all()
    assert torch.equal(logits[1], run(model, x)[1])


def test_a_module_that_is_not_named_is_left_alone():
    model, x = inject_rows(tiny()), ids()
    only = drawn(model, only="layers.0.self_attn.q_proj")
    assert len(only) == 1
    with bind_adapters(model, only, 1):
        ours = run(model, x)
    assert torch.allclose(ours, run(merged("qwen2", only, 1), x), atol=ATOL)


def test_other_ranks_and_other_layers_are_padded_with_zeros():
    model, x = inject_rows(tiny()), ids(3)
    singles = [one(drawn(model, 1, rank, seed), 0) for seed, rank in enumerate((2, 8, 5))]
    del singles[1]["model.layers.1.self_attn.v_proj"]
    with bind_adapters(model, stack_adapters(singles), [0, 1, 2]):
        together = run(model, x)
    for i, single in enumerate(singles):
        with bind_adapters(model, single, 0):
            assert torch.allclose(together[i : i + 1], run(model, x[i : i + 1]), atol=ATOL)


def gradients(model, weights, rows, x):
    leaves = {name: tuple(m.clone().requires_grad_() for m in pair) for name, pair in weights.items()}
    with bind_adapters(model, leaves, rows):
        model(x).logits.square().mean(dim=(1, 2)).sum().backward()
    return {name: [m.grad for m in pair] for name, pair in leaves.items()}


@pytest.mark.parametrize("rows", [[0, 0, 1, 1, 2, 2], [2, 0, 1, 0, 2, 1], [0, -1, 1, -1, 2, 2]])
def test_many_adapters_train_at_once_as_each_alone(rows):
    model, x = inject_rows(tiny()).requires_grad_(False), ids(6)
    weights, rows = drawn(model), torch.tensor(rows)
    together = gradients(model, weights, rows, x)
    for i in range(3):
        alone = gradients(model, {n: (a[i : i + 1], b[i : i + 1]) for n, (a, b) in weights.items()}, 0, x[rows == i])
        for name in weights:
            for ours, theirs in zip(together[name], alone[name], strict=True):
                assert theirs.abs().max() > 0
                assert torch.allclose(ours[i], theirs[0], atol=ATOL)


def test_generated_weights_pass_gradients_to_what_generated_them():
    model, x = inject_rows(tiny()).requires_grad_(False), ids(2)
    weights, code = drawn(model, count=2), torch.ones(2, 1, 1, requires_grad=True)
    with bind_adapters(model, {name: (a, b * code) for name, (a, b) in weights.items()}, [0, 1]):
        model(x).logits.square().sum().backward()
    assert code.grad.abs().min() > 0


def test_recomputed_layers_run_under_what_their_forward_pass_ran_under():
    def grads(checkpointing, disturb):
        model = inject_rows(tiny()).requires_grad_(False).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        weights = {n: tuple(m.requires_grad_() for m in pair) for n, pair in drawn(model).items()}
        with bind_adapters(model, weights, [0, 1, 2]):
            loss = model(ids()).logits.square().sum()
        if disturb:
            with bind_adapters(model, drawn(model, seed=9), 0):
                loss.backward()
        else:
            loss.backward()
        assert not model.row_binding.backward
        return torch.cat([m.grad.flatten() for pair in weights.values() for m in pair])

    expected = grads(checkpointing=False, disturb=False)
    for disturb in (False, True):
        assert torch.allclose(grads(checkpointing=True, disturb=disturb), expected, rtol=1e-4, atol=ATOL)


def test_one_backward_pass_over_two_bindings_is_refused_where_layers_are_recomputed():
    model = inject_rows(tiny()).train()
    weights, losses = drawn(model), []
    for i in (0, 1):
        with bind_adapters(model, weights, i):
            losses.append(model(ids()).logits.square().sum())
    sum(losses).backward()  # nothing is recomputed, so nothing can go wrong
    model.activation_checkpointing_enable({"use_reentrant": False})
    losses = []
    for i in (0, 1):
        with bind_adapters(model, weights, i):
            losses.append(model(ids()).logits.square().sum())
    with pytest.raises(RuntimeError, match="call backward once for each"):
        sum(losses).backward()
    with bind_adapters(model, weights, 0):
        model(ids()).logits.sum().backward()


def test_a_binding_belongs_to_its_thread():
    model, x = inject_rows(tiny()), ids()
    weights, plain, seen = drawn(model), run(inject_rows(tiny()), ids()), {}
    expected = []
    for i in range(3):
        with bind_adapters(model, weights, i):
            expected.append(run(model, x))
    barrier = threading.Barrier(4)

    def work(i):
        wrong = 0
        barrier.wait()
        for _ in range(30):
            with bind_adapters(model, weights, i):
                wrong += not torch.equal(run(model, x), expected[i])
        seen[i] = wrong

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for _ in range(30):
        assert torch.equal(run(model, x), plain)
    for thread in threads:
        thread.join()
    assert seen == {0: 0, 1: 0, 2: 0}


def test_blocks_nest_and_a_copy_of_the_model_has_nothing_bound():
    model, x = inject_rows(tiny()), ids()
    weights = drawn(model)
    with bind_adapters(model, weights, 0):
        outer = run(model, x)
        with bind_adapters(model, weights, 1):
            assert not torch.allclose(run(model, x), outer, atol=1e-3)
        assert torch.equal(run(model, x), outer)
        assert torch.equal(run(copy.deepcopy(model), x), run(tiny(), x))
    gc.collect()
    assert torch.equal(run(model, x), run(tiny(), x))


def test_inside_a_hyperlora_both_updates_add_up():
    model, x = awake(inject_hyperlora(tiny(), target_modules=("q_proj", "up_proj"))).eval(), ids()
    before = {name for name, _ in model.named_parameters() if "lora_A" in name}
    inject_rows(model)
    assert {name for name, _ in model.named_parameters() if "lora_A" in name} == before
    weights = drawn(model)
    reference = merged("qwen2", weights, 1)
    awake(inject_hyperlora(reference, target_modules=("q_proj", "up_proj"))).eval()
    with bind_rho(model, 0.3), bind_adapters(model, weights, 1), torch.no_grad():
        ours = model(x).logits
    with bind_rho(reference, 0.3), torch.no_grad():
        assert torch.allclose(ours, reference(x).logits, atol=ATOL)


def test_dropout_decides_what_the_adapters_see():
    model, x = inject_rows(tiny()).train(), ids()
    weights, seen = drawn(model), []

    def nothing(name, inputs):
        seen.append(name)
        return torch.zeros_like(inputs)

    with bind_adapters(model, weights, 0, dropout=nothing):
        assert torch.equal(run(model, x), run(tiny(), x))
    assert seen == list(row_layers(model))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda w: ({"model.layers.9.self_attn.q_proj": next(iter(w.values()))}, 0, 1.0), InputError, "no adapted layer"),
        (lambda w: (w, [3], 1.0), ValueError, "from -1 to 2"),
        (lambda w: (w, [-2], 1.0), ValueError, "from -1 to 2"),
        (lambda w: (w, [], 1.0), ValueError, "from -1 to 2"),
        (lambda w: (w, [0], [1.0, 2.0]), ValueError, "scaling"),
        (lambda w: ({n: (b, a) for n, (a, b) in w.items()}, 0, 1.0), ValueError, r"must be \[N, r, 32\]"),
        (
            lambda w: ({n: (a[: i + 1], b[: i + 1]) for i, (n, (a, b)) in enumerate(w.items())}, 0, 1.0),
            ValueError,
            "equally",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, error, match):
    model = inject_rows(tiny())
    weights, rows, scaling = change(drawn(model))
    with pytest.raises(error, match=match), bind_adapters(model, weights, rows, scaling):
        pass


def test_models_that_take_no_adapters_and_wrong_batches_are_refused():
    with pytest.raises(InputError, match="inject_rows"), bind_adapters(tiny(), {}, 0):
        pass
    with pytest.raises(InputError, match="already"):
        inject_rows(inject_rows(tiny()))
    with pytest.raises(InputError, match="none ends with"):
        inject_rows(tiny(), ("nothing",))
    model = inject_rows(tiny())
    with pytest.raises(ValueError, match="batch has 3"), bind_adapters(model, drawn(model), [0, 1]):
        run(model, ids(3))
    with pytest.raises(ValueError, match="no adapters"):
        stack_adapters([])


def test_scaled_is_alpha_over_rank():
    a, b = torch.ones(4, 3), torch.ones(2, 4)
    lora = LoRA.of({"x": (a, b)}, alpha=16)
    assert torch.equal(lora.scaled()["x"][1], b * 4)
    assert lora.size() == 4 * (12 + 8)
