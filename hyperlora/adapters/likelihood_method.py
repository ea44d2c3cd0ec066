"""Routing by likelihood: which loaded adapter would have done what was seen?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bargain_env.errors import InputError

from .likelihood import Answered, answer_log_likelihoods, with_answers
from .manager import AdapterManager
from .routing import Scores
from .spec import AdapterSpec

Seen = Sequence[tuple[str, str]]
"""Decisions that were seen: the prompt of each, and its answer."""


class Likelihood:
    """Log-likelihood of decisions under each loaded adapter, and under none of them.

    log P(adapter | seen) = log P(seen | adapter) + log P(adapter) + const: Bayes' rule over the adapters and the null
    hypothesis, that the base (or an adapter pooled over everybody) explains the decisions as well. Only loaded adapters
    are compared, all of them in one batch, each in rows of its own.

    Args:
        manager: of a model (not of a server); its loaded adapters are compared, at scaling 1.
        tokenizer: that of the prompts.
        null: name of the pooled adapter; None for the bare base model.
        prior: prior weight of each adapter by name, 1 for those not named.
        null_prior: odds that it is none of them before anything is seen, however many there are (at temperature 1, which
            softens priors too).
        handicap: nats a decision that the null hypothesis is put behind: an adapter pooled over everybody predicts better
            than one that has read little, whoever decides.
        batch_rows: rows of a forward pass.
        max_length: longest sequence; a longer prompt loses tokens at its front.
    """

    threshold = 0.0  # whether it is anybody known is asked of all adapters together

    def __init__(
        self,
        manager: AdapterManager,
        tokenizer: Any,
        *,
        null: str | None = None,
        prior: Mapping[str, float] | None = None,
        null_prior: float = 1.0,
        handicap: float = 0.0,
        batch_rows: int = 64,
        max_length: int = 1024,
    ) -> None:
        bad = [name for name, weight in (prior or {}).items() if not (0.0 < weight < math.inf)]
        if not 0.0 <= handicap < math.inf:
            raise InputError(f"handicap {handicap} must be 0 or more, and finite")
        if bad or not 0.0 < null_prior < math.inf or batch_rows < 1 or max_length < 2:
            raise InputError(
                f"prior weights must be above 0 and finite (wrong: {bad or null_prior}), batch_rows {batch_rows} at least 1 "
                f"and max_length {max_length} at least 2"
            )
        self._manager, self._tokenizer, self._null = manager, tokenizer, null
        self._prior, self._null_prior, self._handicap = dict(prior or {}), null_prior, handicap
        self._batch_rows, self._max_length = batch_rows, max_length

    def prepare(self, query: Any) -> list[Answered]:
        """Token ids of each decision with the end-of-sequence token, as trained, and where its answer begins.

        Raises:
            InputError: not pairs of prompt and answer, or an answer that does not fit in ``max_length``.
        """
        pairs = list(query) if isinstance(query, Sequence) and not isinstance(query, str) else None
        if pairs is None or not all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs):
            raise InputError("likelihood routing reads decisions that were seen, as pairs of prompt and answer")
        return with_answers(self._tokenizer, pairs, self._max_length)

    def scores(self, prepared: list[Answered], specs: Sequence[AdapterSpec]) -> Scores:
        """Log-joint of the decisions and each loaded adapter."""
        allowed = {spec.name for spec in specs}
        loaded = [entry["name"] for entry in self._manager.status()["loaded"]]
        names = sorted(name for name in loaded if name.partition("@")[0] in allowed and name != self._null)
        if not names:
            return Scores(log=True, reason="no adapter that may be chosen is loaded")
        if not prepared:
            return Scores(log=True, reason="nothing was seen yet")
        found = self.log_likelihoods(prepared, [*names, self._null])
        joint = {n: v + math.log(self._prior.get(n, 1.0)) for n, v in zip(names, found[:-1], strict=True)}
        behind = self._handicap * len(prepared)
        odds = self._null_prior * sum(self._prior.get(name, 1.0) for name in names) / len(names)
        return Scores(joint, log=True, null=found[-1] + math.log(odds) - behind)

    @torch.no_grad()
    def log_likelihoods(self, prepared: list[Answered], names: Sequence[str | None]) -> list[float]:
        """Sum over the decisions of log P(answer | prompt), under each adapter; None is the base. Nats.

        Answers of one adapter are summed in their order and in double precision; the batches that a pass is cut into move
        the result by float32 rounding only.
        """
        model = self._manager.model
        if model.training:
            raise InputError("the model is in training mode, where dropout would choose the adapter; call model.eval()")
        work = [(i, row) for i in range(len(names)) for row in prepared]
        total = [0.0] * len(names)
        for start in range(0, len(work), self._batch_rows):
            part = work[start : start + self._batch_rows]
            with self._manager.serving_rows([names[i] for i, _ in part], scaling=1.0):
                values = answer_log_likelihoods(model, [row for _, row in part], int(self._tokenizer.pad_token_id))
            for (i, _), value in zip(part, values, strict=True):
                total[i] += value
        return total
