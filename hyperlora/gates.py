"""The gates: a small network of ρ for each adapted layer, g(ρ) ∈ ℝʳ.

W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A     (seed report, section 1.1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
}


class RhoHyperNet(nn.Module):
    """ρ ``[B, 1]`` → gates ``[B, rank]``: two SiLU layers and a bounded output (seed report, section 2.1).

    Args:
        rank: number of gates.
        hidden_dim: width of both hidden layers.
        use_fourier: feed sin(2ⁱπρ) and cos(2ⁱπρ), i < ``fourier_freqs``, to the first layer.
        fourier_freqs: number of frequencies.
        include_raw: feed ρ itself beside the Fourier features.
        activation: ``sigmoid`` (default), ``tanh`` or ``softplus``.

    Raises:
        ValueError: unknown activation, or nothing to feed.
    """

    frequencies: Tensor

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
        self.rank, self.activation = rank, activation
        self.use_fourier, self.include_raw = use_fourier, include_raw
        frequencies = torch.pi * 2.0 ** torch.arange(fourier_freqs if use_fourier else 0)
        self.register_buffer("frequencies", frequencies, persistent=False)
        width = 2 * len(frequencies) + int(include_raw) if use_fourier else 1
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
            for position, factor in ((0, 2.0), (2, 1.5), (4, 4.0)):
                self.net[position].weight.mul_(factor)  # type: ignore[operator]

    def encode(self, rho: Tensor) -> Tensor:
        """What the first layer sees: ``[B, 1]``, or ``[B, 2F (+ 1)]`` with Fourier features."""
        if not self.use_fourier:
            return rho
        angles = rho * self.frequencies
        parts = [torch.sin(angles), torch.cos(angles), *([rho] if self.include_raw else [])]
        return torch.cat(parts, dim=-1)

    def forward(self, rho: Tensor) -> Tensor:
        """Gates ``[B, rank]`` of ρ ``[B, 1]``."""
        return ACTIVATIONS[self.activation](self.net(self.encode(rho)))


def gate_bank(nets: Sequence[RhoHyperNet], rho: Tensor) -> Tensor:
    """Gates of all layers in one batched product: ``[L, B, rank]`` of ρ ``[B, 1]``; equal to calling each net.

    A Python loop over the 196 small networks of a 28-layer model costs as much as a layer of it; this does not.
    """
    first = nets[0]
    x = first.encode(rho).expand(len(nets), -1, -1)
    for position in (0, 2, 4):
        linears = [net.net[position] for net in nets]
        weight = torch.stack([layer.weight for layer in linears])  # type: ignore[misc]
        bias = torch.stack([layer.bias for layer in linears])  # type: ignore[misc]
        x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        if position < 4:
            x = nn.functional.silu(x)
    return ACTIVATIONS[first.activation](x)
