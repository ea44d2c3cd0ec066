"""A model merged at one ρ as an ordinary Hugging Face folder: no adapter, no ρ, no package of ours needed to load it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bargain_env.errors import InputError
from bargain_env.files import replacing_folder
from bargain_env.rho_grid import valid_rho

from .base import no_progress_bar
from .digest import adapter_digest
from .export import base_name
from .identity import is_four_bit_linear
from .layer import HyperLoRALinear
from .merge import dense_weight, frozen_base, gates_at, merged_weight
from .token_rows import HeadRows, TokenRows
from .tokens import save_tokenizer

MERGE_RECORD = "hyperlora_merge.json"
"""Says what a folder was merged from, and that it may be replaced by another merge."""


def save_merged(
    model: Any, rho: float, out_dir: Path | str, *, tokenizer: Any = None, dtype: torch.dtype | None = None
) -> Path:
    """Write ``model`` merged at ``rho``, whole or not at all; ``model`` itself does not change.

    Rows trained for new tokens are written into the embedding table, which grows if it must and never shrinks. A head tied
    to the table then knows them too; one that is not gets the mean of its rows for them.

    Args:
        model: causal LM with an adapter, merged or not.
        rho: in [0, 1] or -1.
        out_dir: replaced if it holds an earlier merge; refused if it holds something else.
        tokenizer: saved beside the model.
        dtype: of the weights; by default what each has. A 4-bit base needs one, for it is written dense.

    Returns:
        The folder.

    Raises:
        InputError: ρ out of range, a weight that is not finite, a 4-bit base without ``dtype``, or a foreign folder.
    """
    value, folder = valid_rho(rho), Path(out_dir)
    if dtype is None and any(is_four_bit_linear(module) for module in model.modules()):
        raise InputError(
            "the base is in 4 bits and a merged model is dense; give its dtype (--dtype): float32, bfloat16 or float16"
        )
    state, tied = merged_state(model, value, dtype)
    shell = _shell(model, state, tied)
    record = {
        "schema_version": 1,
        "rho": value,
        "base_model": base_name(model),
        "base_digest": model.base_digest,
        "base_precision": model.base_precision,
        "adapter_digest": adapter_digest(model),
    }
    with replacing_folder(folder, MERGE_RECORD) as temporary:
        with no_progress_bar():
            shell.save_pretrained(str(temporary))
        if tokenizer is not None:
            save_tokenizer(tokenizer, temporary)
        (temporary / MERGE_RECORD).write_text(json.dumps(record, indent=2) + "\n")
        (temporary / "README.md").write_text(_card(record, shell))
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors writes files that nobody else may read
    return folder


@torch.no_grad()
def merged_state(model: Any, rho: float, dtype: torch.dtype | None = None) -> tuple[dict[str, Tensor], bool]:
    """The state that the base's own class loads, and whether its head is tied to its embedding table.

    Raises:
        InputError: a weight that is not finite.
    """
    gates = gates_at(model, [rho])[:, 0]
    head, table = model.get_output_embeddings(), model.get_input_embeddings().weight
    tied = head is not None and not isinstance(head, HyperLoRALinear) and head.weight is table
    ours = tuple(
        f"{name}." for name, m in model.named_modules() if isinstance(m, HyperLoRALinear | TokenRows | HeadRows)
    )
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name.startswith(ours) or (tied and module is head):
            continue
        for key, tensor in _tensors(module, gates, dtype).items():
            state[f"{name}.{key}" if name else key] = tensor
    if head is not None and not tied:
        _lengthen(state, _name_of(model, head), len(state[_name_of(model, model.get_input_embeddings()) + ".weight"]))
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{name} merged at rho = {rho:g} holds NaN or infinity; nothing was written")
    return state, tied


def _tensors(module: nn.Module, gates: Tensor, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """What ``module`` itself adds to the state, in ``dtype`` or its own; its submodules are left out."""
    found: dict[str, Tensor | None]
    if isinstance(module, TokenRows | HeadRows):
        found = _with_rows(module)
    elif isinstance(module, HyperLoRALinear):
        found = {"weight": merged_weight(module, gates[module.index], dtype), "bias": frozen_base(module).bias}  # type: ignore[dict-item]
    else:
        buffers = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
        found = {**module._parameters, **buffers}
        if is_four_bit_linear(module):
            found["weight"] = dense_weight(module)
    return {
        name: tensor.detach().to(dtype) if dtype and tensor.is_floating_point() else tensor.detach()
        for name, tensor in found.items()
        if tensor is not None
    }


def _with_rows(module: TokenRows | HeadRows) -> dict[str, Tensor | None]:
    """The base's table with the trained rows in their places, longer where they lie beyond its end; its bias passes by."""
    table, last = dense_weight(module.base), module.first + len(module.rows)
    weight = torch.cat([table, table.new_zeros(max(0, last - len(table)), table.shape[1])])
    weight[module.first : last] = module.rows.to(table.dtype)
    bias = getattr(module.base, "bias", None)
    if bias is not None:
        bias = torch.cat([bias, bias.new_zeros(len(weight) - len(table))])
        bias[module.first : last] = 0.0
    return {"weight": weight, "bias": bias}


def _lengthen(state: dict[str, Tensor], head: str, rows: int) -> None:
    """Give an untied head as many rows as the table has."""
    weight = state[f"{head}.weight"]
    missing = rows - len(weight)
    if missing > 0:
        state[f"{head}.weight"] = torch.cat([weight, weight.float().mean(dim=0).to(weight.dtype).expand(missing, -1)])
        if f"{head}.bias" in state:
            bias = state[f"{head}.bias"]
            state[f"{head}.bias"] = torch.cat([bias, bias.new_zeros(missing)])


def _name_of(model: nn.Module, wanted: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _shell(model: Any, state: dict[str, Tensor], tied: bool) -> Any:
    """A model of the base's class and config around ``state``."""
    table = state[_name_of(model, model.get_input_embeddings()) + ".weight"]
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    text = config.get_text_config()
    text.vocab_size = len(table)
    config.tie_word_embeddings = text.tie_word_embeddings = tied
    config.dtype = table.dtype
    with torch.device("meta"):
        shell = type(model)(config)
    missing, unexpected = shell.load_state_dict(state, strict=False, assign=True)
    shell.tie_weights()
    left = sorted(name for name, p in shell.named_parameters() if p.device.type == "meta")
    if left or unexpected:
        wrong = f"missing {left or missing}, unexpected {unexpected}"
        raise InputError(
            f"{type(model).__name__} does not take the merged weights: {wrong}; export a PEFT adapter instead"
        )
    shell.generation_config = model.generation_config
    return shell.eval()


def _card(record: dict[str, Any], shell: Any) -> str:
    return f"""# {record["base_model"] or "A model"} merged at ρ = {record["rho"]:g}

A HyperLoRA adapter (digest `{record["adapter_digest"]}`) added to its base {record["base_model"]} (digest
`{record["base_digest"]}`, precision {record["base_precision"]}) at one value of its condition, ρ = {record["rho"]:g}. The
weights are dense {str(shell.dtype).removeprefix("torch.")}. It is an ordinary model: there is no ρ to bind any more.

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("FOLDER")
```
"""
