"""Which configs of PEFT are of a plain LoRA, W + s · B A on linear layers: the one list that catalogue and reader share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bargain_env.errors import InputError

_HARMLESS = {
    # read by `read_peft`, or by a registry
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "domain", "description", "keywords", "base_digest", "weights_digest",
    # where and from what it came
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    # which layers have an A and a B, which the weights say themselves
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "megatron_config", "megatron_core",
    # of training alone
    "lora_dropout", "eva_config", "velora_config", "runtime_config",
    # of no effect unless another field is set, which is refused then
    "loftq_config", "corda_config", "lora_ga_config", "qalora_group_size", "ensure_weight_tying",
}  # fmt: skip
"""Fields of PEFT 0.21 that change nothing in what a finished adapter computes, whatever they say."""
_FIRST_WEIGHTS = (True, "true", "gaussian", "eva", "orthogonal")
"""``init_lora_weights`` that leave the base as it is; PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ put other weights into it."""
_OFF: tuple[Any, ...] = (None, False, "none", "", [], {})


def refuse_other_methods(place: Path, config: Mapping[str, Any]) -> None:
    """Raise `InputError` for an adapter that does something besides adding (α / r) · B · A to linear layers.

    A field that is set and that nobody here knows is refused too: what it does would be left out.

    Args:
        place: to name in the error.
        config: ``adapter_config.json``.
    """
    method = config.get("peft_type")
    if method != "LORA":
        what = "names no peft_type" if method is None else f"is of a {method} adapter"
        raise InputError(
            f"{place} is not the config of a PEFT LoRA: it {what} (peft_type); only LoRA can be bound per row, so export it "
            "as one"
        )
    found = [
        key for key, value in config.items() if key not in _HARMLESS and value not in _OFF and not _kept(key, value)
    ]
    if found:
        raise InputError(
            f"{place} uses {', '.join(f'{key} = {config[key]!r}' for key in found)}, which a plain LoRA cannot hold; "
            "train it without, or save it as a plain LoRA"
        )


def _kept(key: str, value: Any) -> bool:
    """Whether the first weights were drawn beside a base that stays as it is."""
    return key == "init_lora_weights" and value in _FIRST_WEIGHTS
