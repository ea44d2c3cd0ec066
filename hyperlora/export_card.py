"""The card of an exported adapter: what it is, of which base, and the lines that load it."""

from __future__ import annotations

from typing import Any

from .base import NANO, SMOLLM2

_HEAD_KNOWS = "The head has rows for these tokens too, so the model can write them."
_HEAD_DOES_NOT = """The live model reads these tokens and never writes them. In PEFT a head tied to the embedding table gets
their rows too, so the logits of these ids differ from the live ones; those of all other ids do not."""


def card(record: dict[str, Any], targets: list[str]) -> str:
    """Markdown text of ``README.md``.

    Args:
        record: as ``hyperlora_export.json`` holds it.
        targets: suffixes of the adapted layers.
    """
    rho, rank, alpha = record["rho"], record["rank"], record["alpha"]
    base = record["base_model"] or "a base without a name"
    return f"""---
library_name: peft
tags:
- lora
---

# LoRA of {base} at ρ = {rho:g}

A HyperLoRA adapter, W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A, at the one value ρ = {rho:g} of its condition:
`lora_A` is A and `lora_B` is B · diag(g({rho:g})), so it is a plain LoRA and needs no code of its own.

| | |
|---|---|
| ρ | {rho:g} |
| base | {base} |
| base digest | `{record["base_digest"]}` |
| precision of the base | {record["base_precision"]} |
| α / r | {alpha:g} / {rank} |
| layers | {", ".join(targets)} |
| adapter digest | `{record["adapter_digest"]}` |

Load it on that base and in that precision. Where the prompt names ρ in its text, it still has to say {rho:g}.

```python
{_loading(record)}
```
{_rows(record)}"""


def _loading(record: dict[str, Any]) -> str:
    base, rows = record["base_model"] or "BASE", record["token_rows"]
    if record["base_precision"] == "nf4":
        module, load = "hyperlora import load_base", f'base, _ = load_base("{base}", use_qlora=True)'
    elif base in (NANO, SMOLLM2) or base.endswith(".gguf"):
        module, load = "hyperlora import load_base", f'base, _ = load_base("{base}")'
    else:
        module = "transformers import AutoModelForCausalLM"
        load = f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")'
    grow = [f"base.resize_token_embeddings({rows[1]})"] if _beyond(record) else []
    last = 'model = PeftModel.from_pretrained(base, "FOLDER").eval()'
    return "\n".join(["from peft import PeftModel", f"from {module}", "", load, *grow, last])


def _beyond(record: dict[str, Any]) -> bool:
    """Whether rows lie past the end of the base's table."""
    return record["token_rows"] is not None and record["token_rows"][1] > record["vocab_rows"]


def _rows(record: dict[str, Any]) -> str:
    """What is to be known about rows for new tokens; nothing where there are none."""
    if record["token_rows"] is None:
        return ""
    first, end = record["token_rows"]
    head = _HEAD_KNOWS if record["head_rows"] else _HEAD_DOES_NOT
    text = f"""
## Tokens of its own

The adapter trained embedding rows {first} … {end - 1} for the markers of its prompt; they travel as PEFT's
`trainable_token_indices`, beside the tokenizer that spells them. vLLM and llama.cpp do not read such rows and refuse this
folder. An adapter trained with `markers="existing"` has none.

{head}
"""
    if not _beyond(record):
        return text
    return f"""{text}
The base's table has {record["vocab_rows"]} rows and must grow to {end} before the adapter is loaded, by these two lines:

```python
base.resize_token_embeddings({end})
model = PeftModel.from_pretrained(base, "FOLDER").eval()
```
"""
