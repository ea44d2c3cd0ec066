"""Conditional LoRA: one frozen language model whose low-rank update is gated by a small network of a scalar ρ.

W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A

>>> model = hyperlora.inject_hyperlora(model, rank=16, alpha=32.0)
>>> with hyperlora.bind_rho(model, [[0.2], [0.8]]):
...     model(input_ids)                    # row 0 at ρ = .2, row 1 at ρ = .8
"""

from .base import load_base
from .binding import bind_rho
from .checkpoint import Adapter, load_hyperlora_adapter, prepare_model, save_hyperlora_adapter
from .data import HyperLoRACollator, NegotiationDataset
from .dense import save_merged
from .digest import adapter_digest
from .export import export, export_grid
from .gates import GateBank, RhoHyperNet
from .inject import HyperLoRASettings, adapter_parameters, inject_hyperlora
from .layer import HyperLoRALinear
from .losses import compute_gate_separation_loss, compute_gate_smoothness_loss
from .merge import merge, merged, unmerge
from .prompt import (
    SPECIAL_TOKENS,
    build_history_str,
    build_prompt,
    format_rho_text,
    format_success_text,
    normalize_price,
)
from .swap import swap
from .tokens import build_nano_tokenizer

__all__ = [
    "SPECIAL_TOKENS",
    "Adapter",
    "GateBank",
    "HyperLoRACollator",
    "HyperLoRALinear",
    "HyperLoRASettings",
    "NegotiationDataset",
    "RhoHyperNet",
    "adapter_digest",
    "adapter_parameters",
    "bind_rho",
    "build_history_str",
    "build_nano_tokenizer",
    "build_prompt",
    "compute_gate_separation_loss",
    "compute_gate_smoothness_loss",
    "export",
    "export_grid",
    "format_rho_text",
    "format_success_text",
    "inject_hyperlora",
    "load_base",
    "load_hyperlora_adapter",
    "merge",
    "merged",
    "normalize_price",
    "prepare_model",
    "save_hyperlora_adapter",
    "save_merged",
    "swap",
    "unmerge",
]
