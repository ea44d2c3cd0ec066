"""The opponent models themselves: one base, the adapters of some personas, and what each of them says of a decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from agents import janus_prompts
from agents.guards import playable
from agents.janus_models import MODEL_LOCK
from bargain_env.errors import InputError
from bargain_env.policy import Floats, Ints, SeatView
from hyperlora.adapters.likelihood import answer_log_likelihoods, with_answers
from hyperlora.adapters.peft_folder import LoRA, read_peft
from hyperlora.adapters.rows import bind_adapters, inject_rows, stack_adapters
from hyperlora.base import load_base
from hyperlora.decode.adapted import AdapterHead
from hyperlora.decode.scorer import Scorer
from hyperlora.outside import OUTSIDE_RHO
from hyperlora.prompt import K_HISTORY, decision_target
from hyperlora.tokens import encode

from .pool import Counterpart, Pool

ROWS = 128
"""Of a forward pass of likelihoods."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What an opponent is predicted to do in n decisions.

    Attributes:
        accepts: ``[n]`` probability that it accepts what stands, to 1e-4; 0 where nothing does.
        price: ``[n]`` median of what it offers otherwise, in currency units and playable.
    """

    accepts: Floats
    price: Floats


class OpponentModels:
    """Adapters of personas on their base, each row of a pass under its own.

    Args:
        pool: where they come from.
        counterparts: those to load, P of them.

    Raises:
        InputError: no adapter, one that is missing or damaged, or the base is not the one that they were trained on.
    """

    def __init__(self, pool: Pool, counterparts: Sequence[Counterpart]) -> None:
        if not counterparts:
            raise InputError("no persona adapter sits opposite; make personas of both seats and of this preset")
        self.pool, self.counterparts = pool, tuple(counterparts)
        self.model, self.tokenizer = load_base(pool.base)
        if self.model.base_digest != pool.base_digest:
            raise InputError(
                f"the adapters in {counterparts[0].folder.parent} were trained on another base than {pool.base} (digest "
                f"{pool.base_digest[:12]}…, not {self.model.base_digest[:12]}…); name theirs with base=PATH"
            )
        loras = [self._read(one.folder) for one in counterparts]
        if pool.pooled is not None:
            loras.append(self._read(pool.pooled))
        inject_rows(self.model, tuple(dict.fromkeys(n.rpartition(".")[2] for lora in loras for n in lora.layers)))
        self.model.eval()
        self.weights = stack_adapters([lora.scaled() for lora in loras])
        self.null = len(counterparts) if pool.pooled is not None else -1
        self.scorer = Scorer(self.model, self.tokenizer, "median", head=AdapterHead(self.model, self.weights))

    def _read(self, folder: Any) -> LoRA:
        lora = read_peft(folder)
        if lora.metadata.get("base_digest") not in (None, self.pool.base_digest):
            raise InputError(f"{folder} was trained on another base than the others beside it; train it anew")
        return lora

    def prompts(self, view: SeatView) -> list[str]:
        """What a model of the seat in ``view`` is asked, as in its training."""
        said = np.full(len(view), OUTSIDE_RHO)
        return janus_prompts.prompts(view, said, K_HISTORY, self.pool.prompt_format)

    def log_likelihoods(self, view: SeatView, offered: Floats) -> Floats:
        """``[n, P + 1]`` log P of the offer made in each row under each persona, and last under the null hypothesis; nats.

        Args:
            view: n decisions of the opponent.
            offered: ``[n]`` what it offered.
        """
        axis = janus_prompts.axis(view.games, self.pool.prompt_format)
        answers = [decision_target("OFFER", price, axis.row(i)) for i, price in enumerate(offered.tolist())]
        rows = with_answers(self.tokenizer, list(zip(self.prompts(view), answers, strict=True)))
        hypotheses = [*range(len(self.counterparts)), self.null]
        work = sorted(
            ((row, which) for row in range(len(rows)) for which in range(len(hypotheses))),
            key=lambda pair: (len(rows[pair[0]][0]), pair),
        )
        found = np.zeros((len(rows), len(hypotheses)))
        pad = int(self.tokenizer.pad_token_id)
        with MODEL_LOCK:
            for start in range(0, len(work), ROWS):
                part = work[start : start + ROWS]
                with bind_adapters(self.model, self.weights, [hypotheses[which] for _, which in part]):
                    values = answer_log_likelihoods(self.model, [rows[row] for row, _ in part], pad)
                for (row, which), value in zip(part, values, strict=True):
                    found[row, which] = value
        return found

    def predict(self, view: SeatView, which: Ints) -> Predicted:
        """What the personas ``which`` ``[n]`` would do in each row, to be compared digit by digit.

        Decisions are rounded as Janus's own are: to 1e-4 of the range, then to the tick.
        """
        if not len(view):
            return Predicted(np.zeros(0), np.zeros(0))
        with MODEL_LOCK:
            decided = self.scorer.decide(
                encode(self.tokenizer, self.prompts(view)), which.astype(np.float64), ~np.isnan(view.standing)
            )
        axis = janus_prompts.axis(view.games, self.pool.prompt_format)
        price = playable(axis.price(np.rint(decided.price * 1e4) / 1e4), view.games)
        return Predicted(np.rint(decided.accept_probability * 1e4) / 1e4, price)


@lru_cache(maxsize=4)
def shared_models(pool: Pool, counterparts: tuple[Counterpart, ...], _stamp: tuple[int, ...]) -> OpponentModels:
    """`OpponentModels`, loaded once a process as long as the stamp of its files is the same."""
    return OpponentModels(pool, counterparts)
