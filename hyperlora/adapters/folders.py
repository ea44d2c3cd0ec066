"""One folder with an adapter, PEFT's or ours, read into an `AdapterSpec` without building its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bargain_env.errors import InputError

from ..adapter_files import CONFIG, PICKLE, WEIGHTS, adapter_folder, read_config
from ..export import EXPORT_RECORD
from ..peft_format import PEFT_WEIGHTS
from .plain import refuse_other_methods
from .spec import AT, AdapterSpec, Kind

META = "adapter_meta.json"
"""Optional file beside the weights: what an adapter is for. It wins over keys of ``adapter_config.json``."""
META_KEYS = ("domain", "description", "keywords", "base_digest", "weights_digest")
SUMMARY = "training_summary.json"
"""Of a training run; says which base it was on."""
DIGESTS = ("base_digest", "weights_digest")
_FILES = (CONFIG, WEIGHTS, PICKLE, PEFT_WEIGHTS, META, EXPORT_RECORD, SUMMARY)

Stamp = list[list[Any]]
"""``[name, bytes, mtime in ns]`` of each file that a spec is read from."""


def stamp(folder: Path) -> Stamp:
    """Changes when a file of the adapter is written; costs a few `stat` calls and reads nothing."""
    found = []
    for name in _FILES:
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        found.append([name, status.st_size, status.st_mtime_ns])
    return found


def read_spec(place: Path) -> AdapterSpec:
    """The adapter in the folder ``place``, named after it.

    Raises:
        InputError: no adapter, a damaged file, or a kind of adapter that cannot be bound per row.
    """
    if AT in place.name:
        raise InputError(f"{place}: {AT!r} in a name stands before a rho; rename the folder")
    folder = adapter_folder(place)
    config = _json(folder / CONFIG)
    kind: Kind = "lora" if "peft_type" in config or "r" in config else "hyperlora"
    fields = _peft(folder, config) if kind == "lora" else _ours(folder)
    weights = weights_file(folder, kind)
    named = {**config, **_base(folder, weights), **_meta(folder)}
    return AdapterSpec(
        name=place.name,
        path=str(folder),
        domain=_text(named, "domain", place.name, folder),
        description=_text(named, "description", "", folder),
        keywords=_words(named, folder),
        base_digest=_text(named, "base_digest", None, folder),
        weights_digest=_text(named, "weights_digest", None, folder),
        size_bytes=weights.stat().st_size,
        kind=kind,
        digest=digest_of((folder / CONFIG).read_bytes(), _hashed(weights)),
        **fields,
    )


def weights_file(folder: Path, kind: Kind) -> Path:
    """The file with the weights of an adapter of this kind.

    Raises:
        InputError: none that is read.
    """
    names = (WEIGHTS, PICKLE) if kind == "hyperlora" else (PEFT_WEIGHTS,)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if (folder / "adapter_model.bin").is_file():
        raise InputError(
            f"{folder} has its weights in adapter_model.bin, a pickle, which is not read; save it again with "
            "safe_serialization=True"
        )
    raise InputError(f"no weights in {folder}: {' or '.join(names)} is missing; save the adapter again")


def digest_of(config: bytes, weights_sha256: bytes) -> str:
    """SHA-256 over the digests of an adapter's config and weights."""
    return hashlib.sha256(hashlib.sha256(config).digest() + weights_sha256).hexdigest()


def _hashed(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.is_file():
        return default
    if not path.is_file():
        raise InputError(f"no adapter in {path.parent}: {path.name} is missing; save the adapter again")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); mend it, or save the adapter again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, not an object; save the adapter again")
    return value


def _base(folder: Path, weights: Path) -> dict[str, Any]:
    """The digests of the base, from wherever those who write adapters put them."""
    summary = _json(folder / SUMMARY, {}).get("base")
    summary = summary if isinstance(summary, dict) else {}
    trained = {"base_digest": summary.get("digest"), "weights_digest": summary.get("weights_digest")}
    found: dict[str, Any] = {}
    for source in (_header(weights)[1], _json(folder / EXPORT_RECORD, {}), trained):
        found |= {name: source[name] for name in DIGESTS if source.get(name)}
    return found


def _meta(folder: Path) -> dict[str, Any]:
    meta = _json(folder / META, {})
    foreign = sorted(meta.keys() - set(META_KEYS))
    if foreign:
        raise InputError(f"{folder / META} has unknown keys {foreign}; known: {', '.join(META_KEYS)}")
    return meta


def _text(named: dict[str, Any], key: str, default: Any, folder: Path) -> Any:
    value = named.get(key, default)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{folder}: {key} is {value!r}, not a text; mend it in {META} or {CONFIG}")
    return default if value is None else value


def _words(named: dict[str, Any], folder: Path) -> tuple[str, ...]:
    words = named.get("keywords") or []
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        raise InputError(f"{folder}: keywords are {words!r}, not a list of words; mend them in {META} or {CONFIG}")
    return tuple(dict.fromkeys(word.strip().lower() for word in words))


def _peft(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Fields of a spec from PEFT's config.

    Raises:
        InputError: the method is not a LoRA that is A and B alone.
    """
    refuse_other_methods(folder / CONFIG, config)
    return {
        "rank": _rank(folder, config.get("r", 8)),
        "alpha": _number(folder, "lora_alpha", config.get("lora_alpha", 8)),
        "target_modules": _targets(config, _header(folder / PEFT_WEIGHTS)[0]),
    }


def _ours(folder: Path) -> dict[str, Any]:
    """Fields of a spec from the config of a ρ-adapter."""
    config = read_config(folder)
    if config.get("token_rows"):
        raise InputError(
            f"{folder} trains {config['token_rows']} token rows, which every row of a batch would share; train it with "
            "markers = existing, or serve it with load_hyperlora_adapter"
        )
    return {
        "rank": _rank(folder, config.get("rank", 16)),
        "alpha": _number(folder, "alpha", config.get("alpha", 32.0)),
        "target_modules": _targets(config, _header(folder / WEIGHTS)[0]),
    }


def _rank(folder: Path, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(
            f"{folder / CONFIG}: the rank is {value!r}, not a whole number above 0; save the adapter again"
        )
    return value


def _number(folder: Path, name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{folder / CONFIG}: {name} is {value!r}, not a number; save the adapter again")
    return float(value)


def _header(path: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the tensors in a safetensors file, and its metadata; opening it finds a truncated one out."""
    if not path.is_file() or path.suffix != ".safetensors":
        return [], {}
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys()), dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}); save the adapter again") from error


def _targets(config: dict[str, Any], tensors: list[str]) -> tuple[str, ...]:
    """Suffixes of the adapted layers: from the tensors that are there, else from the config."""
    marked = [name.split(".lora_A")[0] for name in tensors if ".lora_A" in name]
    named = config.get("target_modules")
    listed = [str(name) for name in named] if isinstance(named, list) else []
    return tuple(sorted({name.rpartition(".")[2] for name in marked or listed}))
