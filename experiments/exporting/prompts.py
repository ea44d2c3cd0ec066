"""``prompt`` and ``completion`` texts for supervised fine-tuning with TRL: what `hyperlora.data` would tokenise, as text."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa

import hyperlora.prompt
from experiments.corpus.teachers import asked_rho
from hyperlora.data import REQUIRED, texts

from .source import Block
from .tables import Layout
from .writing import described

_MEANINGS = {
    "outcome": "the settlement that the game reached, -1 at an impasse",
    "asked": "the settlement that the player was asked to reach",
}
SCHEMA = described(
    ("prompt", pa.string(), "the canonical prompt of the decision"),
    (
        "completion",
        pa.string(),
        "ACCEPT, or OFFER and the price as prompts of this format count it; no end-of-sequence token",
    ),
    ("rho", pa.float32(), "what the prompt asks for, which gates would be set to; -1 for an impasse"),
    ("trajectory_id", pa.string(), "the game, as in steps and episodes"),
    ("turn", pa.int32(), "turn of the game, from 1"),
)
"""The columns; TRL reads the first two."""


def layout(labels: str, prompt_format: int, k_history: int) -> Layout:
    """One table, `SCHEMA`.

    Args:
        labels: what ρ is: ``outcome``, the settlement that the game reached; ``asked``, what the player was asked to reach,
            which only the decisions of a trained teacher tell.
        prompt_format: 1, 2, 3 or 4.
        k_history: history slots.
    """
    markers = ", ".join(f"`{marker}`" for marker in hyperlora.prompt.markers(prompt_format))
    return Layout(
        {"prompts": SCHEMA},
        partial(rows, labels=labels, prompt_format=prompt_format, k_history=k_history),
        "Decisions in games over one price, as prompts and their completions for supervised fine-tuning. Prompts are of "
        f"format {prompt_format} of bargain-lab with {k_history} history slots; ρ is {_MEANINGS[labels]}. The markers "
        f"{markers} may be added to a tokenizer as tokens of their own.",
        'from datasets import load_dataset\nfrom trl import SFTTrainer\n\ntrain = load_dataset(DIR, split="train")\n'
        "SFTTrainer(MODEL, train_dataset=train).train()",
    )


def rows(block: Block, labels: str, prompt_format: int, k_history: int) -> tuple[dict[str, pa.Table], int]:
    """`SCHEMA` of the decisions of ``block``, in order, and how many of them were left out.

    Those are left out that `hyperlora.data.NegotiationDataset` drops, for a degenerate price range, and those without a
    label. Arguments as in `layout`.
    """
    steps = block.steps
    rho = steps["rho_train"].to_numpy() if labels == "outcome" else asked_rho(steps["strategy"].to_numpy())
    width = steps["price_high"].to_numpy() - steps["price_low"].to_numpy()
    kept = np.flatnonzero((width > 1e-6) & ~np.isnan(rho))
    steps, said = steps.take(kept), rho[kept].astype(np.float32)
    prompts, completions = texts(steps.select([*REQUIRED, "role"]), said, k_history, prompt_format)
    columns = [pa.array(prompts, pa.string()), pa.array(completions, pa.string()), pa.array(said)]
    table = pa.table([*columns, steps["trajectory_id"], steps["turn"].cast(pa.int32())], schema=SCHEMA)
    return {"prompts": table}, block.steps.num_rows - len(kept)
