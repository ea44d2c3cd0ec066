"""How ρ reaches the layers: bound to the model as a ``[B, 1]`` tensor, turned into gates once per forward pass.

The contract is the seed's: ``model.current_rho = tensor([[0.3]])`` before a forward pass, None for the bare base model.
`bind_rho` is the same for the length of a block, which is what training needs: gradient checkpointing recomputes parts of
the forward pass within the backward pass, and these must read the gates that they read the first time. Where they would
not, the backward pass raises; unguarded, its gradients would be wrong and nothing would show it.

One thread at a time: ρ and gates are state of the model, so two threads that share a model (`nn.DataParallel` included)
need a lock around their passes, or a model each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .gates import GateBank, Mark, RhoHyperNet

OTHER_GATES = (
    "gradient checkpointing recomputes a forward pass that ran at other gates than those of now (another rho was bound, the "
    "block was left, or a pass without gradients came between), so its gradients would be wrong; keep bind_rho open around "
    "forward and backward, and give any pass between the two a bind_rho of its own"
)
NOT_THROUGH_MODEL = (
    "rho is bound but no gates were made of it: this pass began inside the model; call the model that was injected, not a "
    "part of it"
)


class RhoBinding:
    """The ρ of a model and the gates made of it; shared by all adapted layers of the model.

    Attributes:
        nets: the gate networks, in layer order.
        bank: all of them in one product.
        gates: ``[L, B, rank]`` of the latest forward pass, float32; None where no ρ is bound.
        made_of: what `refresh` made them of.
        bound: ρ ``[B, 1]`` of the innermost `bind_rho`; None outside, or where it switches the adapter off.
        merged_at: ρ at which `hyperlora.merge` has put the update into the base weights; None where it has not.
        waiting: a ρ is bound and no forward pass has begun since.
        conflict: a backward pass has begun that belongs to other gates than these.
        spent: a backward pass has begun that belongs to these gates, and frees their graph.
        running: the gates that the latest backward pass belongs to; None where no pass has begun since they were replaced.
    """

    def __init__(self, nets: Sequence[RhoHyperNet]) -> None:
        self.nets = list(nets)
        self.merged_at: float | None = None
        self.bank = GateBank.of(self.nets)
        self.put(None, None, None)

    def put(self, gates: Tensor | None, made_of: Any, bound: Tensor | None, waiting: bool = False) -> None:
        """Replace the gates that the layers read, and what is known of them."""
        self.gates, self.made_of, self.bound, self.waiting = gates, made_of, bound, waiting
        # Cut once: each layer indexing for itself would have a gradient of the whole, most of it zeros.
        self._rows = () if gates is None else gates.unbind(0)
        self.conflict = self.spent = False
        self.running: tuple[Tensor | None] | None = None
        self._weights: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model starts without gates: they belong to a pass, and PyTorch refuses to copy their graph."""
        return {"nets": self.nets, "merged_at": self.merged_at}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["nets"])  # type: ignore[misc]
        self.merged_at = state["merged_at"]

    def refresh(self, rho: Tensor | float | Sequence[float] | None) -> None:
        """Compute the gates of ``rho``; called once before each forward pass of the model.

        Without gradients, one `bind_rho` computes them once, and anew where a weight was replaced or written.

        Raises:
            RuntimeError: the adapter is merged into the base weights.
        """
        self.refuse_if_merged(rho)
        if rho is None:
            self.put(None, None, self.bound)
            return
        rows = self.bound if self.bound is not None and rho is self.bound else self.as_rows(rho)
        weights = self._mark(rows) if rows is self.bound and not torch.is_grad_enabled() else None
        if weights is None or weights != self._weights:
            self.put(self.bank(rows), rho, self.bound)
            self._weights = weights
        self.conflict = False

    def _mark(self, rows: Tensor) -> tuple[Mark, int] | None:
        """Changes when ρ or a weight of the gates does; None where PyTorch does not say. See `GateBank.mark`."""
        mark = self.bank.mark()
        return None if mark is None or rows.is_inference() else (mark, rows._version)

    def refuse_if_merged(self, rho: Any) -> None:
        """A merged model is at its merged ρ for every row; another ρ on top would be added to it."""
        if rho is not None and self.merged_at is not None:
            raise RuntimeError(
                f"the adapter is merged at rho = {self.merged_at:g}; call unmerge(model) before binding rho"
            )

    def as_rows(self, rho: Tensor | float | Sequence[float]) -> Tensor:
        """``rho`` as a tensor ``[B, 1]`` in the precision of the gates and on their device.

        Raises:
            ValueError: not a scalar, ``[B]`` or ``[B, 1]``, or not finite.
        """
        weight: Tensor = self.nets[0].net[0].weight  # type: ignore[assignment]
        rows = torch.as_tensor(rho, dtype=self.nets[0].precision)
        if rows.ndim < 2:
            rows = rows.reshape(-1, 1)
        if rows.ndim != 2 or rows.shape[1] != 1:
            raise ValueError(f"rho must be a scalar, [B] or [B, 1]; got shape {tuple(rows.shape)}")
        if not torch.isfinite(rows).all():
            raise ValueError("rho holds NaN or infinity")
        return rows.to(weight.device)

    def layer(self, index: int, batch: int) -> Tensor | None:
        """Gates ``[B or 1, rank]`` of one layer for a batch of ``batch`` rows.

        Raises:
            ValueError: the number of bound ρ differs from the number of rows.
            RuntimeError: the layer runs in a backward pass of other gates, or in no pass of the model.
        """
        if self.conflict and in_backward():
            raise RuntimeError(OTHER_GATES)
        if self.gates is None:
            if self.waiting:
                raise RuntimeError(NOT_THROUGH_MODEL)
            return None
        gates = self._rows[index]
        if gates.shape[0] not in (1, batch):
            raise ValueError(
                f"{gates.shape[0]} values of rho are bound but the batch has {batch} rows; bind one rho, or one a row "
                "(bind_rho's copies= where generate repeats rows)"
            )
        return gates

    def begin_backward(self, gates: Tensor | None) -> None:
        """A backward pass begins whose forward pass ran at ``gates``: layers that run from now on are recomputed for it.

        Nothing is raised here, because without gradient checkpointing no layer runs and autograd has kept the old gates.
        Equal gates are as good as the same ones: a recomputed layer gives autograd values, and no new graph.
        """
        now = self.gates
        alike = gates is now or (
            gates is not None
            and now is not None
            and gates.requires_grad == now.requires_grad
            and torch.equal(gates, now)
        )
        self.conflict, self.spent, self.running = not alike, self.spent or gates is now, (gates,)


def attach(model: nn.Module, nets: Sequence[RhoHyperNet]) -> RhoBinding:
    """Give ``model`` a binding and a ``current_rho``; gates are computed before each of its forward passes."""
    binding = RhoBinding(nets)
    model.hyperlora_binding = binding  # type: ignore[assignment]
    model.current_rho = None  # type: ignore[assignment]
    model.register_forward_pre_hook(_refresh_gates)
    model.register_forward_hook(_watch_backward)
    return binding


def _refresh_gates(model: Any, _args: Any) -> None:
    binding: RhoBinding = model.hyperlora_binding
    running = binding.running
    binding.refresh(model.current_rho)
    if running is not None and in_backward():  # the whole model is checkpointed
        binding.begin_backward(*running)


def in_backward() -> bool:
    """Whether this thread is inside a backward pass; what PyTorch's own checkpointing asks."""
    return torch._C._current_graph_task_id() != -1


def _watch_backward(model: Any, _args: Any, output: Any) -> None:
    """Let every output of a pass tell the binding when its backward pass begins, and at which gates it ran."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return
    binding: RhoBinding = model.hyperlora_binding
    gates = binding.gates

    def begin(_grad: Tensor) -> None:
        binding.begin_backward(gates)

    for tensor in output_tensors(output):
        if tensor.grad_fn is not None:
            tensor.register_hook(begin)


def output_tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what a model gives back, at any depth."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | tuple | list):
        for entry in output.values() if isinstance(output, Mapping) else output:
            yield from output_tensors(entry)


@contextlib.contextmanager
def bind_rho(model: Any, rho: Tensor | float | Sequence[float] | None, copies: int = 1) -> Iterator[None]:
    """Within the block every forward and backward pass of ``model`` runs at ``rho``.

    Blocks may be nested; leaving the inner one brings the outer one's ρ and gates back.

    Args:
        model: from `inject_hyperlora`.
        rho: a scalar, ``[B]`` or ``[B, 1]``; None switches the adapter off.
        copies: how often each row of the batch is repeated before it reaches the model. ``generate`` repeats rows
            ``max(num_beams, num_return_sequences)`` times, next to each other, and ρ has to follow them. It is said rather
            than guessed, because 2 values of ρ for 4 rows are a mistake everywhere else, and raise.

    Raises:
        ValueError: ``rho`` of another shape or not finite, or ``copies`` below 1.
        RuntimeError: the adapter is merged; or ``model.current_rho`` was replaced inside the block.
    """
    binding: RhoBinding = model.hyperlora_binding
    binding.refuse_if_merged(rho)
    if copies < 1:
        raise ValueError(f"copies {copies} must be at least 1")
    bound = None
    if rho is not None:
        rows = binding.as_rows(rho)
        bound = rows.repeat_interleave(copies, dim=0) if len(rows) > 1 else rows.clone()
    outer = (model.current_rho, binding.gates, binding.made_of, binding.bound, binding.waiting)
    model.current_rho = bound
    binding.put(None, None, bound, waiting=bound is not None)
    try:
        yield
        if model.current_rho is not bound:
            raise RuntimeError("current_rho was replaced inside bind_rho; its gradients would belong to another rho")
    finally:
        model.current_rho, *state = outer
        binding.put(*state)
