"""The gates: a small network of ρ for each adapted layer, g(ρ) ∈ ℝʳ.

W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A     (seed report, section 1.1)

Gates are float32 whatever the model's precision is, also under autocast (float64 where their weights are): they are a few
numbers a layer, and half precision would round the dial itself. A layer casts them at its multiply.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
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

    def tensors(self) -> dict[str, Tensor]:
        """Weights and biases by name, its own or the bank's slices."""
        return {
            f"net.{position}.{name}": getattr(self.net[position], name)
            for position in LINEARS
            for name in ("weight", "bias")
        }

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
                linear = isinstance(stage, nn.Linear | BankedLinear)
                x = F.linear(x, stage.weight.to(dtype), stage.bias.to(dtype)) if linear else stage(x)  # type: ignore[arg-type]
            return ACTIVATIONS[self.activation](x)


Mark = tuple[list[int], list[int]]


class GateBank(nn.Module):
    """All gate networks of a model as one: it owns their weights, stacked, and each network reads its slice.

    Gates of every layer take three batched products, and an optimizer sees six tensors instead of six a layer. Weights
    are stacked as ``[L, in, out]``, which is how a batched product and its backward pass read them; biases lie flat, so
    that an optimizer that decays only matrices leaves them alone.

    Args:
        nets: of one shape, in layer order; their own parameters are replaced by slices of these.

    Raises:
        ValueError: no network, or networks of different shapes.
    """

    def __init__(self, nets: Sequence[RhoHyperNet]) -> None:
        super().__init__()
        if not nets or any(net.settings != nets[0].settings for net in nets):
            raise ValueError(f"a gate bank needs networks of one shape; got {sorted({net.settings for net in nets})}")
        self.layers, self.encode, self.activation = len(nets), nets[0].encode, ACTIVATIONS[nets[0].activation]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for stage, position in enumerate(LINEARS):
            linears: list[Any] = [net.net[position] for net in nets]
            with torch.no_grad():
                self.weights.append(torch.stack([linear.weight.t() for linear in linears]))
                self.biases.append(torch.cat([linear.bias for linear in linears]))
            for index, net in enumerate(nets):
                net.net[position] = BankedLinear(self, stage, index).train(net.training)
        self.train(nets[0].training)

    def slice(self, stage: int, index: int) -> tuple[Tensor, Tensor]:
        """Weight ``[out, in]`` and bias ``[out]`` of one linear layer of one network: views of what is trained."""
        return self.weights[stage][index].t(), self.biases[stage].view(self.layers, -1)[index]

    @classmethod
    def of(cls, nets: Sequence[RhoHyperNet]) -> GateBank:
        """The bank that ``nets`` share already, or a new one; their first network holds it as a submodule."""
        bank: GateBank | None = getattr(nets[0], "bank", None) if nets else None
        if bank is None or bank.layers != len(nets):
            bank = cls(nets)
            nets[0].bank = bank
        return bank

    def mark(self) -> Mark | None:
        """Changes when a weight is replaced or written in place; None where PyTorch does not say.

        What is written through ``.data`` in place is not counted by PyTorch.
        """
        if torch.compiler.is_compiling():
            return None
        tensors = list(self.parameters())
        try:
            return [tensor.data_ptr() for tensor in tensors], [tensor._version for tensor in tensors]
        except RuntimeError:  # tensors made in inference mode have no version
            return None

    def forward(self, rho: Tensor) -> Tensor:
        """Gates ``[L, B, rank]`` of ρ ``[B, 1]``."""
        dtype = torch.promote_types(self.weights[0].dtype, torch.float32)
        with full_precision(rho.device):
            x = self.encode(rho.to(dtype))
            for stage, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                weight, bias = weight.to(dtype), bias.to(dtype).view(self.layers, 1, -1)
                if weight.shape[1] == 1:  # an outer product: as a sum it costs a tenth of the batched product
                    x = torch.addcmul(bias, x, weight)
                else:
                    x = torch.baddbmm(bias, x.expand(self.layers, -1, -1), weight)
                x = F.silu(x) if stage < len(LINEARS) - 1 else x
            return self.activation(x)


class BankedLinear(nn.Module):
    """A linear layer of a gate network whose weights are a slice of a `GateBank`.

    The slice may be written in place; what would replace it (assigning a parameter) is refused by PyTorch.
    """

    def __init__(self, bank: GateBank, stage: int, index: int) -> None:
        super().__init__()
        self._slice = (bank, stage, index)  # in a tuple, or the bank would be a submodule of every network

    @property
    def weight(self) -> Tensor:
        """``[out, in]``."""
        bank, stage, index = self._slice
        return bank.slice(stage, index)[0]

    @property
    def bias(self) -> Tensor:
        """``[out]``."""
        bank, stage, index = self._slice
        return bank.slice(stage, index)[1]


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
