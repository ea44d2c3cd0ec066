"""What a run will need, before anything is loaded or written: sizes, memory, and one step in small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

from bargain_env.errors import InputError

from .base import load_config, load_tokenizer_of
from .checkpoint import prepare_model
from .data import NegotiationDataset
from .inject import HyperLoRASettings, adapter_parameters
from .plan import TrainSettings
from .train import train

ADAPTER_BYTES = 16
"""Bytes a trainable parameter: itself, its gradient and AdamW's two moments, all float32."""
NF4_BYTES = 0.52
"""Bytes a parameter of a 4-bit matrix: half a byte, and a scale for every 64 that is itself in 8 bits."""
SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will need; nothing was loaded or written to know it.

    Attributes:
        base_parameters: of the base model.
        adapter_parameters: that train.
        adapted_layers: linear layers that are wrapped.
        rows: decisions to train on.
        longest: tokens of the longest row.
        target_tokens: in the largest micro-batch.
        base_bytes: of the base's weights, as they will be loaded.
        adapter_bytes: of the adapter, its gradients and its optimizer.
        logit_bytes: of the logits of the largest micro-batch and their gradient, float32.
        free_bytes: of memory on the device.
        first_loss: of one optimizer step on a shrunk model of the same architecture, with the same data.
    """

    base_parameters: int
    adapter_parameters: int
    adapted_layers: int
    rows: int
    longest: int
    target_tokens: int
    base_bytes: int
    adapter_bytes: int
    logit_bytes: int
    free_bytes: int
    first_loss: float

    @property
    def needed_bytes(self) -> int:
        """All that is known; activations come on top."""
        return self.base_bytes + self.adapter_bytes + self.logit_bytes

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "needed_bytes": self.needed_bytes}


def forecast(
    spec: str,
    make_dataset: Callable[[Any], NegotiationDataset],
    shape: HyperLoRASettings,
    settings: TrainSettings,
    *,
    use_qlora: bool = False,
    prompt_format: int = 2,
    markers: str = "new",
    device: torch.device | None = None,
    adapt: Callable[[Any], Any] = lambda model: model,
) -> Forecast:
    """Check configuration, tokenizer, data and adapter, and take one step on a shrunk model of the same architecture.

    Args:
        spec: base, as for `load_base`; only its configuration and its tokenizer are read.
        make_dataset: the data, tokenised with the tokenizer that it is given.
        shape: of the adapter.
        settings: of the run.
        use_qlora: the base will be in 4 bits.
        prompt_format: of the prompts.
        markers: ``new`` or ``existing``.
        device: whose memory counts; the CPU by default.
        adapt: what the run does to a model with a fresh adapter before it trains.

    Raises:
        InputError: the base's configuration or tokenizer cannot be read, or nothing in it can be adapted.
        TrainingDiverged: the loss of the step is not finite.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(spec)
    with torch.device("meta"):
        whole: Any = AutoModelForCausalLM.from_config(config)
        base = sum(p.numel() for p in whole.parameters())
        stored = _bytes(whole, config, use_qlora)
        prepare_model(whole, load_tokenizer_of(spec), shape, prompt_format, settings.seed, markers=markers)
    trainable = sum(p.numel() for p in adapter_parameters(adapt(whole)).values() if p.requires_grad)
    tokenizer = load_tokenizer_of(spec)
    small = _shrunk(config, settings.seed)
    adapt(prepare_model(small, tokenizer, shape, prompt_format, settings.seed, markers=markers))
    dataset = make_dataset(tokenizer)
    seen: list[float] = []
    train(small, dataset, replace(settings, max_steps=1, precision="fp32"), on_step=lambda r: seen.append(r.loss))
    targets = int(np.sort(dataset.lengths - dataset.prompt_lengths)[-settings.batch_size :].sum())
    return Forecast(
        base_parameters=base,
        adapter_parameters=trainable,
        adapted_layers=len(whole.hyperlora_binding.nets),
        rows=len(dataset),
        longest=int(dataset.lengths.max()),
        target_tokens=targets,
        base_bytes=stored,
        adapter_bytes=trainable * ADAPTER_BYTES,
        logit_bytes=2 * 4 * targets * int(config.vocab_size),
        free_bytes=free_bytes(device or torch.device("cpu")),
        first_loss=seen[0],
    )


def _bytes(model: nn.Module, config: Any, use_qlora: bool) -> int:
    """Of the weights as `load_base` will hold them."""
    width = torch.finfo(getattr(config, "dtype", None) or torch.float32).bits // 8
    total = sum(p.numel() for p in model.parameters()) * width
    if use_qlora:  # the head and the embedding stay as they are
        layers = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
        total -= sum(int(layer.weight.numel() * (width - NF4_BYTES)) for layer in layers)
    return total


def _shrunk(config: Any, seed: int) -> Any:
    """A random model of the same architecture and vocabulary, small enough for any machine."""
    from transformers import AutoModelForCausalLM

    small = {name: value for name, value in SMALL.items() if hasattr(config, name)}
    heads = min(int(getattr(config, "num_key_value_heads", 0) or 4), 4)
    small |= {"num_key_value_heads": heads if 4 % heads == 0 else 4, "head_dim": 16}
    plain = type(config).from_dict({**config.to_dict(), **small, "layer_types": None, "dtype": "float32"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return AutoModelForCausalLM.from_config(plain)
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"no small model of {config.model_type!r} could be made ({error}); leave --dry-run out"
            ) from error


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that are free on ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
