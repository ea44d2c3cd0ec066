"""An adapter to publish, the minute in which it is published, and the command; for the tests of stores."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save_file

from experiments import adapters as command
from experiments import cli

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STEM = "v20260102-0304"
"""The version of that minute."""
WEIGHTS = "adapter_model.safetensors"


def adapter(folder: Path, value: float = 1.0, r: int = 4) -> Path:
    """A small LoRA in a new folder, with a file in a folder of its own."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": "janus-nano", "r": r, "lora_alpha": 8}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {"lora_A": torch.full((r, 3), value), "lora_B": torch.zeros(5, r)}
    save_file(tensors, folder / WEIGHTS)
    (folder / "deeper").mkdir()
    (folder / "deeper" / "note.txt").write_text("kept")
    return folder


def called(*arguments):
    """The command's standard exit code."""
    try:
        cli.main(command.Settings, command.run, [str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code
    return 0
