"""The model card of an adapter: what it is, what it was made from, how to load it, and what it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LOAD = """```python
from hyperlora import bind_rho, load_hyperlora_adapter
adapter = load_hyperlora_adapter(".")  # this folder, or the path of it
with bind_rho(adapter.model, 0.3): logits = adapter.model(adapter.tokenizer("<RHO>", return_tensors="pt").input_ids).logits
```"""


def adapter_card(config: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> str:
    """The card, Markdown.

    Args:
        config: what ``adapter_config.json`` holds; of a training run, its settings under ``run``.
        extra: further facts, by name, for example measured losses.
    """
    run: Mapping[str, Any] = config.get("run") or {}
    sections = [
        f"# HyperLoRA adapter for `{config['base_model']}`\n\n"
        "A frozen language model whose low-rank update is gated by a small network of a number ρ:\n\n"
        "    W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A",
        "## What it is\n\n" + _list(_shape(config)),
        "## How to load it\n\n" + _LOAD,
        "## How it was made\n\n" + _list(_origin(config, run)),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(config)),
    ]
    if run:
        shown = {name: value for name, value in run.items() if name != "data_sha256"}
        sections.append("## Settings of the run\n\n" + _list({f"`{k}`": f"`{v}`" for k, v in shown.items()}))
    if extra:
        sections.append("## Further\n\n" + _list(extra))
    return "\n\n".join(sections) + "\n"


def _list(facts: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _shape(config: Mapping[str, Any]) -> dict[str, str]:
    hidden, rank = config.get("hyper_hidden", "?"), config.get("rank", "?")
    freqs, raw = config.get("fourier_freqs", "?"), config.get("include_raw", True)
    fourier = f"{freqs} Fourier frequencies of ρ{' and ρ itself' if raw else ''}" if config.get("use_fourier") else "ρ"
    rows = [
        f"{config[key]} {name}" for key, name in (("token_rows", "embedding"), ("head_rows", "head")) if config.get(key)
    ]
    return {
        "Base": f"`{config['base_model']}`, precision {config.get('base_precision', 'not recorded')}, "
        f"{config.get('vocab_rows', 'unknown')} vocabulary rows",
        "Base digest": f"`{config.get('base_digest', 'not recorded')}`",
        "Update": f"rank {rank}, α {config.get('alpha', '?')}, dropout {config.get('dropout', '?')}, "
        f"on {', '.join(config.get('target_modules', ['the seven projections']))}",
        "Gates": f"{fourier} → {hidden} → {hidden} → {rank}, {config.get('gate_activation', 'sigmoid')}",
        "Prompt": f"format {config.get('prompt_format', 2)}, {config.get('k_history', 8)} history slots, markers "
        f"{_spelling(config)}",
        "Rows for new tokens": " and ".join(rows) or "none",
    }


def _spelling(config: Mapping[str, Any]) -> str:
    if config.get("markers") == "existing":
        return "spelled with the base's own tokens"
    return "as tokens of their own"


def _origin(config: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """What is recorded of it; an adapter that was not trained by a command records little."""
    versions: Mapping[str, str] = config.get("versions") or {}
    facts = {
        "Steps": config.get("step"),
        "SHA-256 of the data": run.get("data_sha256"),
        "Seed of the initial weights": config.get("seed"),
        "Written by": ", ".join(f"{name} {version}" for name, version in versions.items()) or None,
    }
    return {name: f"`{value}`" for name, value in facts.items() if value is not None} or {"Origin": "not recorded"}


def _limits(config: Mapping[str, Any]) -> list[str]:
    precision = config.get("base_precision")
    limits = [
        "ρ lies in [0, 1]. ρ = -1 is the label of games without a deal: a point of its own, not the low end of the dial, "
        "and nothing between -1 and 0 was ever trained.",
        "What it answers is learned from the games it was trained on, in their price range and length, and from prompts of "
        "the format above; measure it anywhere else before relying on it.",
        "It belongs to this base and this tokenizer; loading it on others is refused.",
    ]
    if precision:
        limits.append(f"It was trained on the base in {precision}; served in another precision it answers differently.")
    if config.get("token_rows"):
        limits.append(
            "It holds rows for tokens that the base does not have, so as a plain LoRA (vLLM, llama.cpp) it is not complete."
        )
    return limits
