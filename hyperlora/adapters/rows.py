"""Plain LoRA bound per row of a batch: every row of one forward pass may run under another adapter.

    y[b] = W x[b] + s · B[rows[b]] (A[rows[b]] x[b])      (LoRA, Hu et al. 2021, equation 3, one adapter a row)

>>> inject_rows(model)
>>> with bind_adapters(model, {"model.layers.0.self_attn.q_proj": (A, B)}, rows=[0, 2, -1]):
...     model(input_ids)                    # rows 0 and 1 under adapters 0 and 2, row 2 is the bare base model

A and B are stacks of N adapters and are given, not owned: they may be parameters of many adapters that train at once, what
a hypernetwork has generated for each row (N = B), or files of a registry. Gradients reach whatever requires them.

A binding belongs to the context that made it (`contextvars`): threads that share a model may serve other adapters at the
same time. What a backward pass computes again, because of gradient checkpointing, runs under the binding of the forward
pass that it belongs to, whatever is bound by then and whichever thread runs it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bargain_env.errors import InputError
from hyperlora.binding import in_backward, output_tensors
from hyperlora.layer import HyperLoRALinear

Weights = Mapping[str, tuple[Tensor, Tensor]]
"""A ``[N, r, d_in]`` and B ``[N, d_out, r]`` by module name; of one adapter also without the first axis."""
Dropout = Callable[[str, Tensor], Tensor]
"""From a module's name and its input ``[B, …, d_in]`` to what the adapters see of it; PEFT drops there too."""

TARGET_MODULES = ("q_proj", "v_proj")
"""Suffixes of the projections that PEFT adapts by default in most models."""


MIXED = (
    "gradient checkpointing recomputes a forward pass, but this backward pass belongs to forward passes under other "
    "adapters too; call backward once for each bind_adapters"
)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Bound:
    """What one `bind_adapters` has bound.

    Attributes:
        owner: the model's `RowBinding`.
        weights: of N adapters, by module name.
        rows: ``[B]`` adapter of each row, -1 for none; ``[1]`` stands for a batch of any size.
        scaling: a number, or ``[N]``.
        dropout: see `Dropout`.
        active: rows that have an adapter; None where all have.
        single: the adapter of all rows; None where they differ.
        share: rows of each adapter where they lie in the order of the adapters, as many of each; else 0.
    """

    owner: RowBinding
    weights: Weights
    rows: Tensor
    scaling: float | Tensor
    dropout: Dropout | None
    active: Tensor | None
    single: int | None
    share: int


_stack: ContextVar[tuple[Bound, ...]] = ContextVar("hyperlora_bound_adapters", default=())


class RowBinding:
    """Which adapters the layers of one model read; shared by all of them.

    Attributes:
        backward: what each backward pass under way belongs to, by PyTorch's number of the pass; None for what began with
            nothing bound. Weak, because a pass that fails never takes its entry back; its graph holds what is bound.
    """

    def __init__(self) -> None:
        self.backward: dict[int, weakref.ref[Bound] | str | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model has nothing bound."""
        return {}

    def __setstate__(self, _state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]

    def current(self) -> Bound | None:
        """What is bound for the layer that asks; None where nothing is.

        Raises:
            RuntimeError: a layer is recomputed in a backward pass of several bindings.
        """
        if self.backward and in_backward():
            task = torch._C._current_graph_task_id()
            if task in self.backward:
                found = self.backward[task]
                if isinstance(found, str):
                    raise RuntimeError(found)
                return None if found is None else found()
        return next((bound for bound in reversed(_stack.get()) if bound.owner is self), None)

    def begin_backward(self, bound: Bound | None) -> None:
        """A backward pass begins whose forward pass ran under ``bound``."""
        task = torch._C._current_graph_task_id()
        own = None if bound is None else weakref.ref(bound)
        if task not in self.backward:
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(lambda: self.backward.pop(task, None))
            self.backward[task] = own
        elif self.backward[task] != own:
            self.backward[task] = MIXED


class RowLoRALinear(nn.Module):
    """A linear layer under the adapters that are bound to the rows of a batch; its base exactly where none is.

    Args:
        base_layer: ``nn.Linear`` or a 4-bit one; not changed.
        name: what adapters call it.
        binding: of the model.
    """

    def __init__(self, base_layer: nn.Module, name: str, binding: RowBinding) -> None:
        super().__init__()
        self.base_layer, self.adapter_name, self.binding = base_layer, name, binding

    @property
    def in_features(self) -> int:
        """Of the base."""
        return int(self.base_layer.in_features)  # type: ignore[arg-type]

    @property
    def out_features(self) -> int:
        """Of the base."""
        return int(self.base_layer.out_features)  # type: ignore[arg-type]

    @property
    def weight(self) -> Tensor:
        """Of the base; some models look at a projection's dtype and device."""
        return self.base_layer.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """Of the base."""
        return self.base_layer.bias  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """``[B, …, d_in]`` → ``[B, …, d_out]``.

        Raises:
            ValueError: the batch has another number of rows than are bound.
        """
        y = self.base_layer(x)
        bound = self.binding.current()
        pair = None if bound is None else bound.weights.get(self.adapter_name)
        if bound is None or pair is None:
            return y
        if len(bound.rows) not in (1, x.shape[0]):
            raise ValueError(
                f"{len(bound.rows)} rows are bound to adapters but the batch has {x.shape[0]}; "
                "bind one adapter, or one a row"
            )
        if bound.active is not None and not len(bound.active):
            return y
        seen = x if bound.dropout is None else bound.dropout(self.adapter_name, x)
        if bound.active is None or len(bound.rows) == 1:
            return y + self._update(seen, bound.rows, bound, pair).to(y.dtype)
        update = self._update(seen[bound.active], bound.rows[bound.active], bound, pair)
        return y.index_add(0, bound.active, update.to(y.dtype))  # rows without an adapter are the base's, bit for bit

    def _update(self, x: Tensor, rows: Tensor, bound: Bound, pair: tuple[Tensor, Tensor]) -> Tensor:
        """The update s · B A x of rows that all have an adapter, ``[B', …, d_out]``."""
        a, b = (matrix.to(x.device, x.dtype) for matrix in pair)
        scale = bound.scaling
        if bound.single is not None:
            update = F.linear(F.linear(x, a[bound.single]), b[bound.single])
            return update * (scale if isinstance(scale, float) else scale[bound.single].to(update))
        count = len(a) if bound.share else len(rows)
        if not bound.share:
            a, b = a[rows], b[rows]
        if isinstance(scale, Tensor):
            b = b * (scale if bound.share else scale[rows]).to(b).view(-1, 1, 1)
        inner = torch.bmm(x.reshape(count, -1, x.shape[-1]), a.transpose(1, 2))
        update = torch.bmm(inner, b.transpose(1, 2)).view(*x.shape[:-1], -1)
        return update * scale if isinstance(scale, float) and scale != 1.0 else update

    def extra_repr(self) -> str:
        """Shown in ``print(model)``."""
        return f"adapter_name={self.adapter_name!r}"


def inject_rows(model: Any, target_modules: Sequence[str] = TARGET_MODULES) -> Any:
    """Put a `RowLoRALinear` around every linear layer whose name ends with a target suffix.

    A model that carries a HyperLoRA keeps it: its layers are adapted on the inside. Inject the HyperLoRA first.

    Args:
        model: a causal LM; changed in place, its parameters are left as they are (frozen or not).
        target_modules: suffixes.

    Returns:
        ``model``.

    Raises:
        InputError: the model carries row adapters already, its HyperLoRA is merged, or nothing that matches is linear.
    """
    if hasattr(model, "row_binding"):
        raise InputError("this model already takes adapters per row; bind them with bind_adapters")
    if getattr(getattr(model, "hyperlora_binding", None), "merged_at", None) is not None:
        raise InputError("the HyperLoRA of this model is merged into its weights; call unmerge(model) first")
    found = {n: m for n, m in model.named_modules() if n.split(".")[-1] in target_modules}
    unfit = [n for n, m in found.items() if not isinstance(m, nn.Linear | HyperLoRALinear)]
    if not found or unfit:
        what = (
            f"{unfit[0]} is a {type(found[unfit[0]]).__name__}" if unfit else f"none ends with {list(target_modules)}"
        )
        raise InputError(f"no linear layers to adapt: {what}; choose other target_modules")
    binding = RowBinding()
    for name, module in found.items():
        inside = isinstance(module, HyperLoRALinear)
        base = module.base_layer if isinstance(module, HyperLoRALinear) else module
        parent = module if inside else model.get_submodule(name.rpartition(".")[0])
        layer = RowLoRALinear(base, name, binding).train(module.training)
        setattr(parent, "base_layer" if inside else name.rpartition(".")[2], layer)
    model.row_binding = binding
    model.register_forward_hook(_watch_backward)
    return model


def row_layers(model: nn.Module) -> dict[str, RowLoRALinear]:
    """The layers of `inject_rows` by the name that adapters call them, in model order."""
    return {module.adapter_name: module for module in model.modules() if isinstance(module, RowLoRALinear)}


def _watch_backward(model: Any, _args: Any, output: Any) -> None:
    """Let every output of a pass tell the binding when its backward pass begins, and what it ran under."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return
    binding: RowBinding = model.row_binding
    bound = binding.current()

    def begin(_grad: Tensor) -> None:
        binding.begin_backward(bound)

    for tensor in output_tensors(output):
        if tensor.grad_fn is not None:
            tensor.register_hook(begin)


@contextlib.contextmanager
def bind_adapters(
    model: Any,
    weights: Weights,
    rows: Tensor | Sequence[int] | int,
    scaling: float | Tensor | Sequence[float] = 1.0,
    dropout: Dropout | None = None,
) -> Iterator[None]:
    """Within the block forward passes of this context run under these adapters, and so do their backward passes.

    Blocks may be nested; the innermost of a model holds, and does not add to the outer one.

    Args:
        model: from `inject_rows`.
        weights: A ``[N, r, d_in]`` and B ``[N, d_out, r]`` by module name; a module that is not named is left alone.
        rows: ``[B]`` number of each row's adapter, -1 for none; a single one holds for a batch of any size.
        scaling: α / r where B does not hold it yet; one, or ``[N]``.
        dropout: what the adapters see of a layer's input; everything by default, in training mode too.

    Raises:
        InputError: the model takes no adapters, or has no such module.
        ValueError: shapes that do not fit, or a number beyond the N adapters.
    """
    binding: RowBinding | None = getattr(model, "row_binding", None)
    if binding is None:
        raise InputError("this model takes no adapters per row; call inject_rows(model) first")
    pairs, count = _checked(model, weights)
    number = torch.as_tensor(rows, dtype=torch.long).reshape(-1)
    lowest, highest = (int(number.min()), int(number.max())) if len(number) else (0, -1)
    if not len(number) or lowest < -1 or highest >= count:
        raise ValueError(f"rows must be numbers from -1 to {count - 1}; got {number.tolist()[:8]}")
    scale = scaling if isinstance(scaling, int | float) else torch.as_tensor(scaling)
    if isinstance(scale, Tensor) and scale.shape != (count,):
        raise ValueError(f"scaling must be a number or [{count}]; got shape {tuple(scale.shape)}")
    bound = Bound(
        binding, pairs, number.to(next(model.parameters()).device),
        float(scale) if not isinstance(scale, Tensor) else scale, dropout, *_layout(number, count),
    )  # fmt: skip
    token = _stack.set((*_stack.get(), bound))
    try:
        yield
    finally:
        _stack.reset(token)


def _layout(rows: Tensor, count: int) -> tuple[Tensor | None, int | None, int]:
    """``active``, ``single`` and ``share`` of `Bound`."""
    active = None if bool((rows >= 0).all()) else torch.nonzero(rows >= 0)[:, 0]
    used = rows.unique().tolist()
    single = int(used[-1]) if len([i for i in used if i >= 0]) == 1 else None
    share = len(rows) // max(count, 1)
    ordered = share > 0 and torch.equal(rows, torch.arange(count).repeat_interleave(share))
    return active, single, share if ordered else 0


def _checked(model: nn.Module, weights: Weights) -> tuple[Weights, int]:
    """``weights`` with a first axis everywhere, and how many adapters they hold."""
    layers, pairs, counts = row_layers(model), dict[str, tuple[Tensor, Tensor]](), dict[int, str]()
    for name, pair in weights.items():
        if name not in layers:
            raise InputError(f"the model has no adapted layer {name!r}; it has {list(layers)[:4]} …")
        a, b = (matrix if matrix.ndim == 3 else matrix[None] for matrix in pair)
        layer, n, rank = layers[name], *a.shape[:2]
        if a.shape != (n, rank, layer.in_features) or b.shape != (n, layer.out_features, rank):
            raise ValueError(
                f"{name}: A {tuple(a.shape)} and B {tuple(b.shape)} must be [N, r, {layer.in_features}] and "
                f"[N, {layer.out_features}, r]"
            )
        pairs[name] = (a, b)
        counts.setdefault(n, name)
    if len(counts) > 1:
        raise ValueError(f"one binding holds equally many adapters of every layer; got {counts}")
    return pairs, next(iter(counts), 0)


def stack_adapters(adapters: Sequence[Weights]) -> dict[str, tuple[Tensor, Tensor]]:
    """N single adapters as one set of weights for `bind_adapters`: A ``[N, r, d_in]``, B ``[N, d_out, r]``.

    Where ranks differ the smaller are padded with zeros, and where an adapter lacks a layer it is zero there.

    Args:
        adapters: A ``[r, d_in]`` and B ``[d_out, r]`` by module name; scaled already (`LoRA.scaled`).

    Raises:
        ValueError: no adapter.
    """
    if not adapters:
        raise ValueError("no adapters to stack")
    stacked = {}
    for name in dict.fromkeys(name for adapter in adapters for name in adapter):
        example = next(adapter[name] for adapter in adapters if name in adapter)
        rank = max(adapter[name][0].shape[0] for adapter in adapters if name in adapter)
        a = example[0].new_zeros(len(adapters), rank, example[0].shape[1])
        b = example[1].new_zeros(len(adapters), example[1].shape[0], rank)
        for i, adapter in enumerate(adapters):
            if name in adapter:
                own = adapter[name][0].shape[0]
                a[i, :own], b[i, :, :own] = adapter[name]
        stacked[name] = (a, b)
    return stacked
