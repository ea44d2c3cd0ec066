"""A network that writes LoRA adapters: from an embedding to A and B of every target layer in one pass (Ha et al. 2017).

    h = encoder(e),   A_l = head_A,l(h),   B_l = head_B,l(h),   W_l' = W_l + (α / r) · B_l A_l

>>> network = HyperNetwork.for_model(model, input_dim=26)
>>> with bind_adapters(model, network(embeddings), rows=range(len(embeddings))):
...     model(input_ids).loss.backward()  # gradients reach the network

The bias of a head is an adapter for everybody, its weights say how those of one embedding differ. A fresh network generates
the A of a fresh LoRA and B = 0 for every embedding, so that its first step starts from the base, bit for bit; or it starts
from a trained LoRA (`HyperNetwork.start_from`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from bargain_env.errors import InputError

from ..export import base_name
from .folders import META
from .peft_folder import LoRA, write_peft
from .rows import TARGET_MODULES, Weights, inject_rows, row_layers

LINEAGE = "generated.json"
"""In the folder of a generated adapter: digests of the network and of the embedding, and the embedding itself."""


class HyperNetwork(nn.Module):
    """Embedding → LoRA.

    The encoder is d → 2k → k with GELUs (k is ``bottleneck_dim``). The heads of all layers are two linear maps whose
    outputs are cut into the layers, so layers may differ in width. Almost all parameters are in the heads: about
    Σ r · (d_in + d_out) · (k + 1); ``head_rank`` puts one narrow map before them and so replaces k by it.

    Args:
        input_dim: d, entries of an embedding.
        shapes: (d_in, d_out) of each target layer, by the name that `hyperlora.adapters.rows` calls it.
        lora_rank: r.
        alpha: α.
        bottleneck_dim: k.
        head_rank: width of what the heads share; None for the bottleneck itself.
        seed: of the initial weights.

    Raises:
        InputError: a size below 1, an α that is not positive, or no layer.
    """

    def __init__(
        self,
        input_dim: int,
        shapes: Mapping[str, tuple[int, int]],
        lora_rank: int = 8,
        alpha: float = 16.0,
        bottleneck_dim: int = 32,
        head_rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"input_dim": input_dim, "lora_rank": lora_rank, "bottleneck_dim": bottleneck_dim}
        sizes |= {} if head_rank is None else {"head_rank": head_rank}
        for name, value in sizes.items():
            if value < 1:
                raise InputError(f"{name} {value} must be at least 1")
        if not 0 < alpha < math.inf:
            raise InputError(f"alpha {alpha} must be positive and finite")
        if not shapes:
            raise InputError("a hypernetwork needs at least one target layer")
        self.input_dim, self.lora_rank, self.alpha = input_dim, lora_rank, float(alpha)
        self.bottleneck_dim, self.head_rank = bottleneck_dim, head_rank
        self.shapes = {name: (int(d_in), int(d_out)) for name, (d_in, d_out) in shapes.items()}
        self._sizes_a = [lora_rank * d_in for d_in, _ in self.shapes.values()]
        self._sizes_b = [d_out * lora_rank for _, d_out in self.shapes.values()]
        width = head_rank or bottleneck_dim
        self.encoder = nn.Sequential(
            skip_init(nn.Linear, input_dim, 2 * bottleneck_dim),
            nn.GELU(),
            skip_init(nn.Linear, 2 * bottleneck_dim, bottleneck_dim),
            nn.GELU(),
            *([] if head_rank is None else [skip_init(nn.Linear, bottleneck_dim, head_rank)]),
        )
        self.heads_a = skip_init(nn.Linear, width, sum(self._sizes_a))
        self.heads_b = skip_init(nn.Linear, width, sum(self._sizes_b))
        self._draw(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        """Initial weights: those of ``nn.Linear`` in the encoder, those of a fresh LoRA in the biases of the heads."""
        for layer in self.encoder:
            if isinstance(layer, nn.Linear):
                bound = 1.0 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
        for tensor in (self.heads_a.weight, self.heads_b.weight, self.heads_b.bias):
            tensor.zero_()
        for part, (d_in, _) in zip(self.heads_a.bias.split(self._sizes_a), self.shapes.values(), strict=True):
            part.uniform_(
                -1.0 / math.sqrt(d_in), 1.0 / math.sqrt(d_in), generator=generator
            )  # Kaiming, as PEFT draws A

    @classmethod
    def for_model(
        cls,
        model: Any,
        input_dim: int,
        model_hidden_dim: int | None = None,
        lora_rank: int = 8,
        num_target_layers: int | None = None,
        bottleneck_dim: int = 32,
        *,
        alpha: float = 16.0,
        head_rank: int | None = None,
        target_modules: Sequence[str] = TARGET_MODULES,
        seed: int = 0,
    ) -> HyperNetwork:
        """A network for the linear layers of a model, whose shapes it reads.

        Args:
            model: a causal LM; `inject_rows` is called on it where nobody has.
            input_dim: entries of an embedding.
            model_hidden_dim: checked against the model where it is given.
            lora_rank: r.
            num_target_layers: how many linear layers to adapt, the last ones of the model; all by default.
            bottleneck_dim: k.
            alpha: α.
            head_rank: see the class.
            target_modules: suffixes of the layers, where `inject_rows` is called.
            seed: of the initial weights.

        Raises:
            InputError: another hidden size, more layers than there are, or as the class and `inject_rows`.
        """
        hidden = getattr(getattr(model, "config", None), "hidden_size", None)
        if model_hidden_dim is not None and model_hidden_dim != hidden:
            raise InputError(f"model_hidden_dim is {model_hidden_dim}, but the model has {hidden}; leave it out")
        if not hasattr(model, "row_binding"):
            inject_rows(model, target_modules)
        shapes = {name: (layer.in_features, layer.out_features) for name, layer in row_layers(model).items()}
        count = len(shapes) if num_target_layers is None else num_target_layers
        if not 1 <= count <= len(shapes):
            raise InputError(f"num_target_layers {count} must lie in 1 … {len(shapes)}, the layers that take adapters")
        last = dict(list(shapes.items())[len(shapes) - count :])
        return cls(input_dim, last, lora_rank, alpha, bottleneck_dim, head_rank, seed)

    @property
    def scaling(self) -> float:
        """α / r."""
        return self.alpha / self.lora_rank

    def forward(self, embedding: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """``[B, d]``, or ``[d]`` for one → A ``[B, r, d_in]`` and (α / r) · B ``[B, d_out, r]`` by layer.

        Raises:
            ValueError: another shape.
        """
        return {name: (a, b * self.scaling) for name, (a, b) in self._unscaled(embedding).items()}

    def _unscaled(self, embedding: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        rows = embedding[None] if embedding.ndim == 1 else embedding
        if rows.ndim != 2 or rows.shape[1] != self.input_dim:
            raise ValueError(f"embeddings must be [B, {self.input_dim}]; got {tuple(embedding.shape)}")
        hidden = self.encoder(rows.to(self.heads_a.weight))
        a, b = self.heads_a(hidden).split(self._sizes_a, 1), self.heads_b(hidden).split(self._sizes_b, 1)
        return {
            name: (a[i].unflatten(1, (self.lora_rank, d_in)), b[i].unflatten(1, (d_out, self.lora_rank)))
            for i, (name, (d_in, d_out)) in enumerate(self.shapes.items())
        }

    @torch.no_grad()
    def start_from(self, lora: LoRA) -> None:
        """Generate this adapter for every embedding, until training makes differences.

        Raises:
            InputError: it has other layers, ranks or scalings than the network generates.
        """
        fits = lora.layers.keys() == self.shapes.keys() and all(
            a.shape == (self.lora_rank, d_in)
            and b.shape == (d_out, self.lora_rank)
            and math.isclose(lora.scaling[name], self.scaling)
            for name, (d_in, d_out) in self.shapes.items()
            for a, b in [lora.layers[name]]
        )
        if not fits:
            raise InputError("the network cannot start from an adapter with other layers, ranks or α / r than its own")
        for head, half in ((self.heads_a, 0), (self.heads_b, 1)):
            head.weight.zero_()
            head.bias.copy_(torch.cat([lora.layers[name][half].reshape(-1) for name in self.shapes]))

    @torch.no_grad()
    def generate(self, embedding: Tensor) -> LoRA:
        """The adapter of one embedding ``[d]``, B not scaled.

        Raises:
            ValueError: another shape.
            InputError: the embedding is not finite.
        """
        if embedding.ndim != 1:
            raise ValueError(f"one embedding is [{self.input_dim}]; got {tuple(embedding.shape)}")
        if not torch.isfinite(embedding).all():
            raise InputError("the embedding holds NaN or infinity; look at the offers that it was made of")
        layers = {name: (a[0].cpu(), b[0].cpu()) for name, (a, b) in self._unscaled(embedding).items()}
        return LoRA.of(layers, self.alpha)

    def export(self, embedding: Tensor, folder: Path | str, model: Any, description: str = "") -> Path:
        """Write the adapter of one embedding as a PEFT folder, which says what it was generated from.

        Args:
            embedding: ``[d]``.
            folder: replaced if it holds an adapter.
            model: the base, for its name and digests.
            description: for the registry.

        Raises:
            ValueError, InputError: as `generate`, or a foreign folder.
        """
        lora = self.generate(embedding)
        values = [float(x) for x in embedding.detach().cpu().double()]
        lineage = {"hypernetwork_digest": self.digest(), "embedding_digest": _digest(embedding)}
        base = {name: getattr(model, name, None) for name in ("base_digest", "weights_digest")}
        known = {name: value for name, value in base.items() if value}
        meta = {"description": description or "generated by a hypernetwork", **known}
        files = {LINEAGE: {**lineage, **base, "embedding": values}, META: meta}
        return write_peft(
            folder, lora, base_model=base_name(model), metadata={**known, **lineage},
            files={name: json.dumps(content, indent=1) + "\n" for name, content in files.items()},
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Arguments of the class but the seed, JSON-ready."""
        return {
            "input_dim": self.input_dim,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "lora_rank": self.lora_rank,
            "alpha": self.alpha,
            "bottleneck_dim": self.bottleneck_dim,
            "head_rank": self.head_rank,
        }

    def digest(self) -> str:
        """SHA-256 over settings and weights: equal digests generate equal adapters."""
        found = hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            found.update(f"\0{name} {_digest(tensor)}".encode())
        return found.hexdigest()

    def size(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def update_norm(weights: Weights) -> Tensor:
    """``[N]`` squared Frobenius norms of the updates of N adapters, summed over layers: ‖B A‖² = ⟨BᵀB, A Aᵀ⟩.

    Args:
        weights: A ``[N, r, d_in]`` and B ``[N, d_out, r]`` by layer, B scaled; never forms a ``[d_out, d_in]`` matrix.
    """
    return torch.stack([((b.mT @ b) * (a @ a.mT)).sum(dim=(1, 2)) for a, b in weights.values()]).sum(dim=0)


def _digest(tensor: Tensor) -> str:
    plain = tensor.detach().cpu().contiguous()
    head = f"{plain.dtype} {list(plain.shape)}".encode()
    return hashlib.sha256(head + plain.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
