"""Hypernetworks on disk: safetensors and a JSON config that names the base, refused on another one. Whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from bargain_env.errors import InputError
from bargain_env.files import replacing_folder

from ..adapter_files import library_versions, refuse_broken
from ..export import base_name
from ..peft_format import in_order
from .hypernetwork import HyperNetwork
from .rows import row_layers

CONFIG, WEIGHTS = "config.json", "hypernetwork.safetensors"
SCHEMA_VERSION = 1
_IDENTITY = ("base_digest", "weights_digest")


def save_hypernetwork(
    network: HyperNetwork, folder: Path | str, model: Any, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a network; the same one gives the same bytes.

    Args:
        network: any.
        folder: replaced if it holds a hypernetwork; refused if it holds something else.
        model: the base that it generates adapters for.
        about: what else the config shall hold, for example how embeddings are made.

    Raises:
        InputError: a weight is not finite, ``about`` has a name that the config uses itself, or a foreign folder.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    refuse_broken(state, f"nothing was saved to {folder}")
    own = {
        "schema_version": SCHEMA_VERSION,
        "kind": "hypernetwork",
        "settings": network.settings(),
        "digest": network.digest(),
        "base_model": base_name(model),
        **{name: getattr(model, name, None) for name in _IDENTITY},
        "versions": library_versions(),
    }
    taken = sorted(own.keys() & (about or {}).keys())
    if taken:
        raise InputError(f"config entries {taken} have names that the config uses itself; rename them")
    folder = Path(folder)
    with replacing_folder(folder, CONFIG) as temporary:
        (temporary / WEIGHTS).write_bytes(in_order(save(state, {"format": "pt"})))
        (temporary / CONFIG).write_text(json.dumps({**own, **(about or {})}, indent=1) + "\n")
    return folder


def load_hypernetwork(folder: Path | str, model: Any) -> tuple[HyperNetwork, dict[str, Any]]:
    """A network, in eval mode, and its config.

    Args:
        folder: of `save_hypernetwork`.
        model: the base that it shall generate adapters for, from `hyperlora.adapters.rows.inject_rows`.

    Raises:
        InputError: files are missing or damaged, a newer version wrote them, or another base.
    """
    folder = Path(folder)
    config = _config(folder / CONFIG)
    for name in _IDENTITY:
        theirs, ours = config.get(name), getattr(model, name, None)
        if None not in (theirs, ours) and theirs != ours:
            raise InputError(
                f"the hypernetwork in {folder} was trained on another base ({name} {str(theirs)[:12]}, this model has "
                f"{str(ours)[:12]}); load {config.get('base_model')}, or train it on this one"
            )
    network = _network(folder, config)
    layers = row_layers(model)
    for name, shape in network.shapes.items():
        found = (layers[name].in_features, layers[name].out_features) if name in layers else None
        if found != shape:
            raise InputError(
                f"the hypernetwork in {folder} writes {name}, {shape[0]} → {shape[1]}; this model has there "
                f"{'no adapted layer' if found is None else f'{found[0]} → {found[1]}'}"
            )
    return network.to(next(model.parameters()).device).eval().requires_grad_(False), config


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"no hypernetwork in {path.parent}: {path.name} is missing")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}); train the hypernetwork again") from error
    if not isinstance(config, dict) or config.get("kind") != "hypernetwork":
        raise InputError(f"{path} is not the config of a hypernetwork")
    if config.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path} is of version {config.get('schema_version')}, this package reads {SCHEMA_VERSION}; upgrade it, or "
            "train the hypernetwork again"
        )
    return config


def _network(folder: Path, config: Mapping[str, Any]) -> HyperNetwork:
    try:
        settings = dict(config["settings"])
        shapes = {name: (int(d_in), int(d_out)) for name, (d_in, d_out) in settings.pop("shapes").items()}
        network = HyperNetwork(shapes=shapes, **settings)
        state = load_file(folder / WEIGHTS)
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the hypernetwork in {folder} cannot be read ({reason}); train it again") from error
    refuse_broken(state, f"weights in {folder} cannot be used")
    if config.get("digest") != network.digest():
        raise InputError(f"{folder / WEIGHTS} does not belong to its {CONFIG}; train the hypernetwork again")
    return network
