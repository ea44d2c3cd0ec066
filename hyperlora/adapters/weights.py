"""The tensors of an adapter: read, checked against the model, and summed with others. Nothing here changes a model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from bargain_env.errors import InputError

from ..adapter_files import CONFIG, read_config, read_state
from ..gates import LINEARS, RhoHyperNet
from ..inject import HyperLoRASettings
from .folders import digest_of, stamp, weights_file
from .peft_folder import read_peft
from .rows import RowLoRALinear
from .spec import AdapterSpec

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class AdapterWeights:
    """A plain LoRA ready to be bound: its update is B · A in each of its layers.

    Immutable: who holds it computes with it to the end, whatever a manager does meanwhile.

    Attributes:
        layers: A ``[r, d_in]`` and B ``[d_out, r]`` by module name; B holds α / r and, of a ρ-adapter, diag(g(ρ)).
        digest: equal digests, equal effect.
    """

    layers: Mapping[str, Pair]
    digest: str

    @property
    def nbytes(self) -> int:
        """Bytes of the storage that the tensors hold, each counted once."""
        return sum(self.by_device().values())

    def by_device(self) -> dict[str, int]:
        """Bytes by device."""
        storages = {(t.device, t.untyped_storage().data_ptr()): t for pair in self.layers.values() for t in pair}
        found: dict[str, int] = {}
        for tensor in storages.values():
            device = str(tensor.device)
            found[device] = found.get(device, 0) + tensor.untyped_storage().nbytes()
        return found

    @property
    def rank(self) -> int:
        """The largest of its layers."""
        return max((a.shape[0] for a, _ in self.layers.values()), default=0)


def read_weights(spec: AdapterSpec, model: Any, layers: Mapping[str, RowLoRALinear]) -> AdapterWeights:
    """Read and check an adapter; the model is only looked at.

    Args:
        spec: what to read; a ρ-adapter at one ρ.
        model: that it shall serve; says which base it is.
        layers: of `hyperlora.adapters.rows.row_layers`.

    Raises:
        InputError: files are missing, damaged or not those that were registered; another base; a layer that the model
            does not have, or of another shape; NaN or infinity.
    """
    if not spec.path:
        raise InputError(
            f"the weights of {spec.name!r} were made in memory and are gone; make them again and adopt them"
        )
    folder = Path(spec.path)
    check_base(spec, model)
    before = stamp(folder)
    found = _at_rho(folder, spec) if spec.kind == "hyperlora" else read_peft(folder).scaled()
    _refuse_changed(spec, folder, before)
    return checked(spec, found, layers)


def check_base(spec: AdapterSpec, model: Any) -> None:
    """Raise `InputError` where the adapter was trained on another base; what nobody said is not checked."""
    for name in ("base_digest", "weights_digest"):
        theirs, ours = getattr(spec, name), getattr(model, name, None)
        if None not in (theirs, ours) and theirs != ours:
            raise InputError(
                f"adapter {spec.name!r} was trained on another base ({name} {str(theirs)[:12]}, this model has "
                f"{str(ours)[:12]}); load that base, or train the adapter on this one"
            )


def _refuse_changed(spec: AdapterSpec, folder: Path, before: Any) -> None:
    """Whoever asks by name gets the adapter that was registered, not what has taken its place since."""
    if not spec.digest:
        return
    with weights_file(folder, spec.kind).open("rb") as file:
        digest = digest_of((folder / CONFIG).read_bytes(), hashlib.file_digest(file, "sha256").digest())
    if spec.rho is not None:
        digest = spec.digest_at(digest, spec.rho)
    if digest != spec.digest or stamp(folder) != before:
        raise InputError(
            f"{folder} has changed since it was registered; call rescan() on the registry, then load again"
        )


def checked(spec: AdapterSpec, found: Mapping[str, Pair], layers: Mapping[str, RowLoRALinear]) -> AdapterWeights:
    """``found`` as tensors of their own in the dtype and on the device of ``layers``.

    Raises:
        InputError: nothing in it, a layer that the model does not have, another shape, NaN or infinity.
    """
    if not found:
        raise InputError(f"adapter {spec.name!r} adapts no layer; train it again")
    own = {}
    for name, (a, b) in found.items():
        if name not in layers:
            raise InputError(
                f"adapter {spec.name!r} adapts {name}, which this model does not take; it has {_some(layers)}"
            )
        layer = layers[name]
        if (a.shape[1], b.shape[0]) != (layer.in_features, layer.out_features) or a.shape[0] != b.shape[1]:
            raise InputError(
                f"adapter {spec.name!r} does not fit: {name} has A {list(a.shape)} and B {list(b.shape)}, the layer is "
                f"{layer.in_features} → {layer.out_features}"
            )
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise InputError(f"adapter {spec.name!r} holds NaN or infinity in {name}; take an earlier copy of it")
        own[name] = (_own(a, layer), _own(b, layer))
    return AdapterWeights(MappingProxyType(own), spec.digest)


def _own(tensor: Tensor, layer: RowLoRALinear) -> Tensor:
    """A copy: what was read may be a window on a file that somebody replaces."""
    weight = layer.weight
    dtype = weight.dtype if weight.is_floating_point() else tensor.dtype  # 4-bit weights are bytes
    return tensor.detach().to(weight.device, dtype, copy=True).contiguous()


def _some(layers: Mapping[str, Any]) -> str:
    suffixes = sorted({name.rpartition(".")[2] for name in layers})
    return f"{len(layers)} layers ({', '.join(suffixes)})"


@torch.no_grad()
def _at_rho(folder: Path, spec: AdapterSpec) -> dict[str, Pair]:
    """A and (α / r) · B · diag(g(ρ)) of a ρ-adapter, without a model.

    Raises:
        InputError: no ρ is named, or the files are damaged.
    """
    if spec.rho is None:
        raise InputError(f"{spec.name!r} is a rho-adapter; name the rho to serve it at, for example {spec.name}@0.5")
    config, state = read_config(folder), read_state(folder)
    known = {field.name for field in fields(HyperLoRASettings)}
    settings = HyperLoRASettings(**{name: value for name, value in config.items() if name in known})
    names = [name.removesuffix(".lora_A") for name in state if name.endswith(".lora_A")]
    try:
        gates = {name: _net(name, state, settings)(torch.tensor([[spec.rho]]))[0] for name in names}
        scale = settings.alpha / settings.rank
        return {n: (state[f"{n}.lora_A"], state[f"{n}.lora_B"] * gates[n] * scale) for n in names}
    except (KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"weights in {folder} do not fit their config ({reason}); save the adapter again") from error


def _net(layer: str, state: Mapping[str, Tensor], settings: HyperLoRASettings) -> RhoHyperNet:
    with torch.device("meta"):  # no initial weights are drawn
        net = RhoHyperNet(
            settings.rank, settings.hyper_hidden, settings.use_fourier, settings.fourier_freqs, settings.include_raw,
            settings.gate_activation,
        )  # fmt: skip
    own = {
        f"net.{i}.{kind}": state[f"{layer}.hyper_net.net.{i}.{kind}"] for i in LINEARS for kind in ("weight", "bias")
    }
    net.load_state_dict(own, assign=True)
    return net


def fuse_weights(parts: Sequence[tuple[AdapterWeights, float]], digest: str) -> AdapterWeights:
    """Σ wᵢ Bᵢ Aᵢ as one adapter: the ranks side by side, A = [A₁; A₂; …] and B = [w₁ B₁, w₂ B₂, …].

    Exact, unlike a mix of the A's and of the B's, which has cross terms (PEFT's ``linear``).

    Raises:
        ValueError: no parts.
    """
    if not parts:
        raise ValueError("nothing to fuse")
    layers = {}
    for name in dict.fromkeys(name for weights, _ in parts for name in weights.layers):
        held = [(*weights.layers[name], weight) for weights, weight in parts if name in weights.layers]
        layers[name] = (torch.cat([a for a, _, _ in held]), torch.cat([b * weight for _, b, weight in held], dim=1))
    return AdapterWeights(MappingProxyType(layers), digest)
