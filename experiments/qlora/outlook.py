"""What a run would do and need, from the configuration and the tokenizer of the base alone: a dry run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from bargain_env.errors import InputError
from hyperlora.base import load_config
from hyperlora.forecast import ADAPTER_BYTES, NF4_BYTES, free_bytes

from .settings import Machine, Settings
from .tokens import Lengths
from .training import planned_steps, with_lora

DEFAULT_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a run needs.

    Attributes:
        steps: of the optimizer.
        base_parameters: frozen ones.
        adapter_parameters: that train.
        base_bytes: of the base's weights as they will be held.
        adapter_bytes: of the adapter, its gradients and its optimizer.
        logit_bytes: of the logits of the largest micro-batch and their gradient, float32.
        free_bytes: of memory on the device.
    """

    steps: int
    base_parameters: int
    adapter_parameters: int
    base_bytes: int
    adapter_bytes: int
    logit_bytes: int
    free_bytes: int

    @property
    def needed_bytes(self) -> int:
        """All that is known; activations come on top."""
        return self.base_bytes + self.adapter_bytes + self.logit_bytes

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "needed_bytes": self.needed_bytes}


def longest_row(settings: Settings) -> int:
    """Tokens of a row, at most.

    Raises:
        InputError: more are asked for than the base has positions for, or the base cannot be read.
    """
    positions = getattr(load_config(settings.model_name_or_path), "max_position_embeddings", None)
    wanted = settings.max_seq_length
    if wanted is None:
        return min(DEFAULT_LENGTH, positions or DEFAULT_LENGTH)
    if positions is not None and wanted > positions:
        raise InputError(
            f"--max-seq-length {wanted}: {settings.model_name_or_path} has {positions} positions; give less"
        )
    return wanted


def outlook(settings: Settings, found: Machine, lengths: Lengths, longest: int) -> Outlook:
    """Sizes and steps; no weight is loaded.

    Raises:
        InputError: the base has none of the target modules.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(settings.model_name_or_path)
    with torch.device("meta"):
        base: Any = AutoModelForCausalLM.from_config(config)
        count = sum(p.numel() for p in base.parameters())
        linear = [m for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
        packed = sum(m.weight.numel() for m in linear) if found.four_bit else 0
        model = with_lora(base, settings)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    positions = settings.train_batch_size * min(longest, lengths.longest)
    return Outlook(
        steps=planned_steps(settings, lengths.rows),
        base_parameters=count,
        adapter_parameters=trained,
        base_bytes=int((count - packed) * found.dtype.itemsize + packed * NF4_BYTES),
        adapter_bytes=trained * ADAPTER_BYTES,
        logit_bytes=2 * 4 * positions * int(config.vocab_size),
        free_bytes=free_bytes(torch.device(found.device)),
    )
