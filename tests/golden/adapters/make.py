"""Writes a golden checkpoint with the code that runs it: ``python tests/golden/adapters/make.py NAME``.

A golden is made once, by the release whose name it carries, and never again: it is what that release left on people's
disks. The script therefore calls only what has been public since schema 1, and refuses to overwrite.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from hyperlora.binding import bind_rho
from hyperlora.checkpoint import prepare_model, save_hyperlora_adapter
from hyperlora.inject import HyperLoRASettings, adapter_parameters, adapter_state, inject_hyperlora
from hyperlora.prompt import SPECIAL_TOKENS

HERE = Path(__file__).resolve().parent
ROWS = 128
"""Rows of the base's table: more than its tokenizer has, as in Qwen2."""
RHO = (-1.0, 0.1, 0.9)
CHARACTERS = "\n !\"'()+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; no markers."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def fresh_base() -> Qwen2ForCausalLM:
    """One layer of width 8 with a padded, tied table."""
    config = Qwen2Config(
        vocab_size=ROWS, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    randomise(dict(model.named_parameters()), 0.5, seed=1)
    return model


def base() -> Any:
    """The stored base; stored, because random numbers may change."""
    model: Any = Qwen2ForCausalLM.from_pretrained(str(HERE / "base")).eval()
    model.base_spec, model.base_precision = "../base", "float32"
    return model


def randomise(parameters: dict[str, torch.nn.Parameter], scale: float, seed: int) -> None:
    """Fill every parameter, in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in sorted(parameters):
            parameters[name].normal_(0.0, scale, generator=generator)


def trained() -> tuple[Any, Any]:
    """The base with rows for the markers and an adapter on three projections, all of it awake, and its tokenizer."""
    model, words = base(), tokenizer()
    prepare_model(model, words, HyperLoRASettings(2, 4.0, 0.0, 4, ("q_proj", "v_proj", "down_proj")))
    randomise(adapter_parameters(model), 0.8, seed=2)
    return model.eval(), words


def ids() -> torch.Tensor:
    """``[1, 12]`` ids of known characters and of markers."""
    return torch.tensor([[83, 20, 3, 85, 40, 84, 93, 17, 50, 91, 9, 2]])


def logits(model: Any) -> torch.Tensor:
    """``[3, V]`` logits of the last position of `ids` at each of `RHO`."""
    with torch.no_grad(), bind_rho(model, torch.tensor(RHO).unsqueeze(1)):
        return model(ids().expand(len(RHO), -1)).logits[:, -1].contiguous()


def write(folder: Path, model: Any) -> None:
    """Put what the model says beside the adapter."""
    save_file({"input_ids": ids(), "rho": torch.tensor(RHO), "logits": logits(model)}, folder / "expected.safetensors")


def seed_layout(folder: Path) -> None:
    """What the seed's trainer wrote: no schema_version, no targets, a bare ``adapter_state.pt``, untrained markers."""
    model, words = inject_hyperlora(base(), 2, 4.0, 0.0, 4), tokenizer()
    words.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS})
    randomise(adapter_parameters(model), 0.8, seed=2)
    folder.mkdir()
    torch.save(adapter_state(model), folder / "adapter_state.pt")
    config = {
        "rank": 2, "alpha": 4.0, "dropout": 0.0, "hyper_hidden": 4, "base_model": "../base", "k_history": 8,
        "augmented_tokens": SPECIAL_TOKENS,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    words.save_pretrained(str(folder))
    write(folder, model.eval())


def main(name: str) -> None:
    """Write the base if it is missing, and the golden called ``name``."""
    folder = HERE / name
    if folder.exists():
        sys.exit(f"{folder} exists; a golden is never written again")
    if not (HERE / "base").exists():
        fresh_base().save_pretrained(str(HERE / "base"))
        tokenizer().save_pretrained(str(HERE / "base"))
    if name == "seed":
        seed_layout(folder)
    else:
        model, words = trained()
        save_hyperlora_adapter(model, words, folder)
        write(folder, model)


if __name__ == "__main__":
    main(sys.argv[1])
