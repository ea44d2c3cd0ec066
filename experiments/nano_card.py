"""The model card of janus-nano."""

from __future__ import annotations

from typing import Any


def nano_card(settings: dict[str, Any]) -> str:
    """Markdown text of the card of a run of `experiments.pipeline` with these settings."""
    options = {k: v for k, v in settings.items() if k not in ("out", "games", "quiet")}
    share = settings["teacher_share"]
    taught = f",\n  {100 * share:g} % of their seats played by target-seeking teachers" if share else ""
    command = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    return f"""# janus-nano

A small Qwen2-architecture language model (`base/`, digit-level tokenizer) and a HyperLoRA adapter (`adapter/`) that
turns its bargaining posture by a number ρ in [0, 1]: 0 asks for the buyer's best price, 1 for the seller's.

- **Base**: pretrained from nothing on {settings["episodes"]:,} games between scripted strategies, with the ρ of every
  prompt taken from another game, so that it cannot know what ρ means ({settings["base_steps"]:,} steps of
  {settings["batch_size"]} decisions).
- **Adapter**: rank 16, trained on the same games with the ρ that each game reached ({settings["adapter_steps"]:,} steps).
- **Games**: preset `{settings["scenario"]}`, random pairs of the strategies registered as `train`, both starters{taught}.
- **Use**: `python -m experiments.tournament --agents janus-nano --scenario {settings["scenario"]}`. Decode with `mean`.
- **Limits**: it knows the price range, the 20 turns and the opponents of its preset, and nothing else. It was
  not trained on other presets: measure it there before relying on it. Its dial is monotone but compressed: a request
  far from the middle is met only as far as its opponents allow, and at the selfish end of a seat a share of games ends
  without a deal.
- **Re-create**: `python -m experiments.pipeline {command} --out DIR`. The weights depend on the
  number of threads in their last bits.
"""
