"""The model card of janus-nano."""

from __future__ import annotations

from typing import Any

from experiments.match.specs import split
from experiments.stages import SPARRING_SHARE


def nano_card(settings: dict[str, Any]) -> str:
    """Markdown text of the card of a run of `experiments.pipeline` with these settings, its `identity`."""
    command = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    presets = list(dict.fromkeys(split(settings["scenario"], "--scenario")))
    named = _listed([f"`{name}`" for name in presets])
    return f"""# janus-nano

A small Qwen2-architecture language model (`base/`, digit-level tokenizer) and a HyperLoRA adapter (`adapter/`) that
turns its bargaining posture by a number ρ in [0, 1]: 0 asks for the buyer's best price, 1 for the seller's.

- **Games**: {settings["episodes"]:,} of {_each(presets, named)}, both starters, between random pairs of the strategies
  registered as `train` and drawn members of their families{_seated(settings)}.
- **Base**: pretrained from nothing on these games, with the ρ of every prompt taken from another game, so that it
  cannot know what ρ means ({settings["base_steps"]:,} steps of {settings["batch_size"]} decisions).
- **Adapter**: rank 16, trained on {_learned(settings)} ({settings["adapter_steps"]:,} steps).{_rounds(settings)}
- **Dial**: {_dial(settings, named)}.
- **Use**: `python -m experiments.tournament --agents janus-nano --scenario {presets[0]}`. Decode with `median`.
- **Limits**: it knows the price range, the 20 turns and the opponents of {named}, and nothing else: measure it on other
  games before relying on it. A request is met only as far as its opponents allow, and at the selfish end of a seat a
  share of games ends without a deal.
- **Re-create**: `python -m experiments.pipeline {command} --out DIR`. The weights depend on the
  number of threads in their last bits.
"""


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _each(presets: list[str], named: str) -> str:
    return f"the presets {named} in turn" if len(presets) > 1 else f"preset {named}"


def _trained(settings: dict[str, Any]) -> bool:
    return bool(settings["teacher_share"] and settings["teacher_rounds"])


def _seated(settings: dict[str, Any]) -> str:
    """Who has the seats of teachers."""
    share, rounds = settings["teacher_share"], settings["teacher_rounds"]
    if not share:
        return ""
    seats = f";\n  {100 * share:g} % of the seats are played by"
    if not rounds:
        return f"{seats} scripted target-seeking teachers"
    return (
        f"{seats} a teacher that was told which ρ to reach,\n"
        f"  and learned by playing them ({rounds:,} rounds), {100 * SPARRING_SHARE:g} % of the others by sparring partners"
    )


def _learned(settings: dict[str, Any]) -> str:
    if _trained(settings):
        return "the decisions of the teachers, each with the ρ that the teacher was asked to reach"
    return "the same games, with the ρ that each of them reached"


def _rounds(settings: dict[str, Any]) -> str:
    """What was trained after that."""
    n = settings["on_policy_rounds"] if _trained(settings) else 0
    if not n:
        return ""
    return (
        f"\n  Then {n} round{'s' * (n > 1)} on-policy: it played {settings['on_policy_games']:,} games of each preset,\n"
        "  the teacher said what it would have done, and training went on with that\n"
        f"  ({settings['on_policy_steps']:,} steps)."
    )


def _dial(settings: dict[str, Any], named: str) -> str:
    scenarios = settings["calibration_games"]
    if not scenarios:
        return "raw: what is asked for goes to prompt and gates as it is"
    return (
        "what is asked for goes through a monotone map for each seat and preset, fitted to what the adapter reached "
        f"against\n  the validation opponents on {named} ({scenarios} scenarios); `--raw-dial` plays without it"
    )
