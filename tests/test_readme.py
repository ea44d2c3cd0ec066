"""What the README shows runs as it stands, on a small model in the place of one from a hub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"
HUB_ID = "Qwen/Qwen2.5-0.5B"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_example_of_any_causal_lm(tiny_base, tmp_path, monkeypatch):
    [code] = [block for block in blocks() if HUB_ID in block]
    assert len(code.strip().splitlines()) <= 17
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(code.replace(HUB_ID, str(tiny_base)).replace("range(100)", "range(3)"), scope)
    model = scope["model"]
    assert any(layer.abs().max() > 0 for name, layer in model.named_parameters() if name.endswith("lora_B"))
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = transformers.AutoModelForCausalLM.from_pretrained(str(tiny_base))
    served = peft.PeftModel.from_pretrained(base, str(tmp_path / "runs" / "at-0.3")).eval()
    ids = torch.arange(20, 32).unsqueeze(0)
    with torch.no_grad():
        plain = model.eval()(ids).logits
        model.current_rho = torch.tensor([[0.3]])
        dialled = model(ids).logits
        assert (dialled - plain).abs().max() > 1e-5
        torch.testing.assert_close(served(ids).logits, dialled, atol=1e-5, rtol=0)


def test_the_other_examples_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shown = [block for block in blocks() if HUB_ID not in block]
    assert len(shown) >= 2
    for code in shown:
        exec(code.replace("1000, seed=0", "8, seed=0").replace("1024,", "16,"), {})
