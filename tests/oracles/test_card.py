"""The model card: it says what the config says, and its code runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hyperlora.adapter_files import read_config
from hyperlora.card import adapter_card

from .saved import GOLDEN, save, write_base


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("checkpoints") / "base")


def test_the_card_says_what_it_is_and_its_code_runs(base, tmp_path, monkeypatch):
    extra = {"step": 40, "run": {"lr": 0.002, "max_steps": 50, "data_sha256": "abc123"}}
    folder = save(base, tmp_path / "a", extra=extra)
    text, config = (folder / "README.md").read_text(), read_config(folder)
    assert text == adapter_card(config)
    assert text.startswith("# HyperLoRA adapter for `")
    for fact in (
        "W(ρ) = W_base + (α / r) · B · diag(g(ρ)) · A", str(base), config["base_digest"], "float32", "rank 2, α 4.0",
        "ρ → 4 → 4 → 2, sigmoid", "8 history slots", "`abc123`", "Steps: `40`", "`lr`: `0.002`", "ρ = -1", torch.__version__,
    ):  # fmt: skip
        assert fact in text, fact
    assert "not complete" not in text
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) == 3
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(code, names)
    assert names["logits"].shape == (1, 1, 131)


def test_the_card_of_the_seed_s_layout_and_of_token_rows():
    seed = adapter_card(read_config(GOLDEN / "seed"), {"eval loss": 0.61})
    assert "precision not recorded" in seed
    assert "- eval loss: 0.61" in seed
    rows = adapter_card(read_config(GOLDEN / "schema-1"))
    assert "Rows for new tokens: 11 embedding" in rows
    assert "not complete" in rows
    spelled = adapter_card(
        {**read_config(GOLDEN / "schema-1"), "markers": "existing", "token_rows": 0, "use_fourier": True}
    )
    assert "markers spelled with the base's own tokens" in spelled
    assert "8 Fourier frequencies of ρ and ρ itself → 4 → 4 → 2" in spelled


def test_a_card_of_one_s_own_replaces_it(base, tmp_path):
    assert (save(base, tmp_path / "a", card="# Mine\n") / "README.md").read_text() == "# Mine\n"
