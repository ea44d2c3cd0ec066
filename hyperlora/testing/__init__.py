"""The identities of gated LoRA as a check that anyone can run on a model of their own, with one call.

>>> from hyperlora.testing import check_adapter
>>> print(check_adapter(inject_hyperlora(my_model)))
"""

from __future__ import annotations

from typing import Any

from .identities import FORWARD
from .probe import Probe, as_found
from .report import Finding, IdentityError, Report, Skipped
from .training import TRAINING
from .weights import WEIGHTS

__all__ = ["IDENTITIES", "Finding", "IdentityError", "Report", "check_adapter"]

IDENTITIES = {**FORWARD, **TRAINING, **WEIGHTS}
"""Every identity by name, in the order in which they are checked."""


def check_adapter(
    model: Any, *, vocab_size: int | None = None, rows: int = 4, length: int = 12, atol: float = 1e-5, seed: int = 0
) -> Report:
    """Check that the adapter of ``model`` does what a gated LoRA must, on random tokens.

    The model is left as it was found, also where an identity fails: weights, gradients, modes, hooks, ρ, and the state of
    every random generator. An adapter that says next to nothing (B is zero, as after `inject_hyperlora`) is given a
    random B for the time of the check. Run it in float32: in half precision the order of a sum is worth about 1e-2, and
    ``atol`` has to say so.

    Args:
        model: from `inject_hyperlora`, or loaded with an adapter; a causal LM that takes ``input_ids`` and returns logits.
            What else an identity needs (a cache, an attention mask, chosen logits, checkpointing) is looked for, and the
            identity is skipped where the model has none.
        vocab_size: token ids are drawn below it; by default the rows of the model's embedding.
        rows: of the batch, each with a ρ of its own.
        length: of the rows, in tokens.
        atol: tolerance of an equality between sums in different order, times the largest value where that is above 1.
        seed: of the tokens, of the random B and of dropout.

    Returns:
        A `Report`, which prints as a table.

    Raises:
        IdentityError: an identity does not hold; an ``AssertionError`` with its name, what was measured, the tolerance, and
            the report up to there.
        InputError: no adapter, or ``rows`` or ``length`` too small to check anything.
        RuntimeError: the adapter is merged, or a ρ is bound.
    """
    findings: list[Finding] = []
    with as_found(model):
        probe = Probe(model, vocab_size, rows, length, atol, seed)
        report = Report(findings, probe.awakened)
        for name, identity in IDENTITIES.items():
            with probe.undisturbed():
                try:
                    finding = identity(probe)
                except Skipped as reason:
                    findings.append(Finding(name, None, None, f"skipped: {reason}"))
                    continue
            findings.append(finding.named(name))
            if not findings[-1].holds:
                raise IdentityError(findings[-1], report)
    return report
