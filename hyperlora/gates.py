"""The gates: a small network of ρ for each adapted layer, g(ρ) ∈ ℝʳ.

W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A     (seed report, section 1.1)

Gates are float32 whatever the model's precision is, also under autocast (float64 where their weights are): they are a few
numbers a layer, and half precision would round the dial itself. A layer casts them at its multiply.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
}

STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "softplus": 1.0}
"""Lipschitz constant of each output activation."""

STEEPEST_SILU = 1.09984
"""Largest slope of SiLU, 1.0998393 (at x = 2.3994), rounded up."""

LINEARS = (0, 2, 4)
"""Where the linear layers of a gate network stand in ``net``."""


class RhoHyperNet(nn.Module):
    """ρ ``[B, 1]`` → gates ``[B, rank]``: two SiLU layers and a bounded output (seed report, section 2.1).

    Args:
        rank: number of gates.
        hidden_dim: width of both hidden layers.
        use_fourier: feed sin(2ⁱπρ) and cos(2ⁱπρ), i < ``fourier_freqs``, to the first layer.
        fourier_freqs: number of frequencies.
        include_raw: feed ρ itself beside the Fourier features. All of them have period 2, so ρ = -1 and ρ = 1 are one
            point without it: failures would share the gates of the highest settlement.
        activation: ``sigmoid`` (default), ``tanh`` or ``softplus``.

    Raises:
        ValueError: unknown activation, or nothing to feed.
    """

    def __init__(
        self,
        rank: int,
        hidden_dim: int = 64,
        use_fourier: bool = False,
        fourier_freqs: int = 8,
        include_raw: bool = True,
        activation: str = "sigmoid",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown gate activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
        if use_fourier and fourier_freqs < 1:
            raise ValueError(f"fourier_freqs {fourier_freqs} must be at least 1 with use_fourier")
        self.settings = (rank, hidden_dim, use_fourier, fourier_freqs, include_raw, activation)
        self.rank, self.activation = rank, activation
        self.use_fourier, self.include_raw = use_fourier, include_raw
        # No buffer: a model cast to bfloat16 would cast it too, and π·2⁷ rounds to another frequency there.
        self.frequencies = [math.pi * 2.0**i for i in range(fourier_freqs if use_fourier else 0)]
        width = 2 * len(self.frequencies) + int(include_raw) if use_fourier else 1
        self.net = nn.Sequential(
            nn.Linear(width, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, rank),
        )
        self._spread()

    def _spread(self) -> None:
        """Widen PyTorch's initial weights.

        As they come, the gates of a fresh network differ by about 1e-3 between ρ = 0 and ρ = 1, and training spends
        thousands of steps before the dial moves at all.
        """
        with torch.no_grad():
            for position, factor in zip(LINEARS, (2.0, 1.5, 4.0), strict=True):
                self.net[position].weight.mul_(factor)  # type: ignore[operator]

    @property
    def precision(self) -> torch.dtype:
        """What gates are computed in: float32, or float64 where the weights are."""
        weight: Tensor = self.net[LINEARS[0]].weight  # type: ignore[assignment]
        return torch.promote_types(weight.dtype, torch.float32)

    def encode(self, rho: Tensor) -> Tensor:
        """What the first layer sees: ``[B, 1]``, or ``[B, 2F (+ 1)]`` with Fourier features."""
        if not self.use_fourier:
            return rho
        angles = rho * torch.tensor(self.frequencies, dtype=rho.dtype, device=rho.device)
        parts = [torch.sin(angles), torch.cos(angles), *([rho] if self.include_raw else [])]
        return torch.cat(parts, dim=-1)

    def forward(self, rho: Tensor) -> Tensor:
        """Gates ``[B, rank]`` of ρ ``[B, 1]``."""
        dtype = self.precision
        with full_precision(rho.device):
            x = self.encode(rho.to(dtype))
            for stage in self.net:
                linear = isinstance(stage, nn.Linear)
                x = F.linear(x, stage.weight.to(dtype), stage.bias.to(dtype)) if linear else stage(x)  # type: ignore[arg-type]
            return ACTIVATIONS[self.activation](x)


Mark = tuple[list[int], list[int]]
WEIGHT, BIAS, VERSION = itemgetter("weight"), itemgetter("bias"), attrgetter("_version")


class GateBank:
    """All gate networks of a model as one: gates of every layer in three batched products, equal to calling each net.

    A Python loop over the 196 small networks of a 28-layer model costs as much as a layer of it; this does not. The
    networks keep their own parameters, by which they are trained, saved and merged; these are stacked anew in each call
    that records gradients, which flow back to them. Without gradients the stacks are kept until a weight changes.

    Args:
        nets: of one shape, in layer order.

    Raises:
        ValueError: no network, or networks of different shapes.
    """

    def __init__(self, nets: Sequence[RhoHyperNet]) -> None:
        if not nets or any(net.settings != nets[0].settings for net in nets):
            raise ValueError(f"a gate bank needs networks of one shape; got {sorted({net.settings for net in nets})}")
        self.first = nets[0]
        # Looking an attribute up in a module costs a microsecond, and there are a thousand to look up.
        stages = [net._modules["net"]._modules for net in nets]  # type: ignore[union-attr]
        self._tables = [[stage[str(position)]._parameters for stage in stages] for position in LINEARS]  # type: ignore[union-attr]

        self._stacks: list[tuple[Tensor, Tensor]] = []
        self._made_from: list[Tensor] = []
        self._mark: Mark | None = None

    def parameters(self) -> list[Tensor]:
        """Weights and biases of the first layers, of the second, of the third."""
        return [tensor for tables in self._tables for each in (WEIGHT, BIAS) for tensor in map(each, tables)]

    def mark(self) -> Mark | None:
        """Changes when a weight is replaced or written in place; None where PyTorch does not say.

        Two marks tell nothing unless the tensors of the first are still held when the second is taken: another tensor may
        lie where a freed one lay. What is written through ``.data`` in place is not counted by PyTorch.
        """
        if torch.compiler.is_compiling():
            return None
        tensors = self.parameters()
        try:
            return list(map(Tensor.data_ptr, tensors)), list(map(VERSION, tensors))
        except RuntimeError:  # tensors made in inference mode have no version
            return None

    def stacks(self, mark: Mark | None = None) -> list[tuple[Tensor, Tensor]]:
        """Weights ``[L, out, in]`` and biases ``[L, out]`` of the three stages."""
        if torch.is_grad_enabled():
            return self._stack()
        mark = mark or self.mark()
        if mark is None or mark != self._mark:
            self._stacks, self._mark, self._made_from = self._stack(), mark, self.parameters()
        return self._stacks

    def _stack(self) -> list[tuple[Tensor, Tensor]]:
        dtype = self.first.precision
        return [
            (torch.stack(list(map(WEIGHT, tables))).to(dtype), torch.stack(list(map(BIAS, tables))).to(dtype))
            for tables in self._tables
        ]

    def __call__(self, rho: Tensor, mark: Mark | None = None) -> Tensor:
        """Gates ``[L, B, rank]`` of ρ ``[B, 1]``; ``mark`` is that of now, if it was taken already."""
        dtype = self.first.precision
        with full_precision(rho.device):
            x = self.first.encode(rho.to(dtype)).expand(len(self._tables[0]), -1, -1)
            for i, (weight, bias) in enumerate(self.stacks(mark)):
                x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
                x = F.silu(x) if i < len(LINEARS) - 1 else x
            return ACTIVATIONS[self.first.activation](x)


def gate_bank(nets: Sequence[RhoHyperNet], rho: Tensor) -> Tensor:
    """Gates ``[L, B, rank]`` of ρ ``[B, 1]``; see `GateBank`, which a loop keeps."""
    return GateBank(nets)(rho)


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Autocast switched off on ``device`` where it is on."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


@torch.no_grad()
def lipschitz_bound(net: RhoHyperNet) -> float:
    """K with ‖g(ρ + ε) - g(ρ)‖₂ ≤ K·|ε| for every ρ and ε, from the weights alone.

    The product of what each stage can stretch by: the encoding (1 for ρ itself; with Fourier features √(Σ(2ⁱπ)² + 1), or
    without the 1 where ρ is not among them, for sine and cosine of one angle move on a circle), the spectral norms of the
    three matrices, SiLU twice, and the output activation. It bounds; the steepest slope that occurs is smaller.
    """
    squares = sum(frequency**2 for frequency in net.frequencies) + float(net.include_raw)
    bound = math.sqrt(squares) if net.use_fourier else 1.0
    for position in LINEARS:
        weight: Tensor = net.net[position].weight  # type: ignore[assignment]
        bound *= torch.linalg.matrix_norm(weight.double(), ord=2).item()
    return bound * STEEPEST_SILU**2 * STEEPEST[net.activation]
