"""Rows for new tokens, trained and saved with the adapter, without touching the base's tables.

Resizing a table to ``len(tokenizer)`` shrinks models whose table is padded (Qwen2) and stores the whole table with the
adapter. Here the base keeps its tables, and the new ids are looked up in rows of our own: always on the way in, and on
request on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bargain_env.errors import InputError

from .identity import is_four_bit_linear


def fresh_rows(weight: Tensor, count: int) -> Tensor:
    """Initial rows ``[count, d]``: the mean row of ``weight`` and a tenth of its spread as noise, in float32.

    A function of the base alone, not of a seed: two runs on one base begin with the same rows. Rows that are all the mean
    could not be told apart, and rows far from it would be louder than any token that the base knows.
    """
    spread, mean = torch.std_mean(weight.detach().float(), dim=0)
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.randn(count, weight.shape[1], generator=generator, device="cpu")
    return mean + 0.1 * spread * noise.to(mean.device)


class TokenRows(nn.Module):
    """An embedding whose ids from ``first`` on live in a small trainable table.

    Args:
        base: the base model's embedding; frozen.
        first: first id held here.
        count: number of rows.
    """

    def __init__(self, base: nn.Module, first: int, count: int) -> None:
        super().__init__()
        self.base, self.first = base, first
        self.rows = nn.Parameter(fresh_rows(self.weight, count))

    def adapter_tensors(self) -> dict[str, nn.Parameter]:
        """As `adapter_parameters`."""
        return self.adapter_parameters()

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """What training changes and a checkpoint holds."""
        return {"rows": self.rows}

    @property
    def weight(self) -> Tensor:
        """The base's table, for code that ties heads to it."""
        return self.base.weight  # type: ignore[return-value]

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``[B, S]`` → vectors ``[B, S, d]``.

        Raises:
            IndexError: an id beyond the rows. On an accelerator the lookup itself stops at such an id, with a device-side
                assertion in place of this message: to look at the ids first would make every step wait for the device.
        """
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            self._refuse_unknown(ids)
        new = ids >= self.first
        known = self.base(ids.masked_fill(new, 0))
        own = F.embedding((ids - self.first).clamp(min=0), self.rows)
        return torch.where(new.unsqueeze(-1), own.to(known.dtype), known)

    def _refuse_unknown(self, ids: Tensor) -> None:
        end, largest = self.first + len(self.rows), int(ids.max()) if ids.numel() else 0
        if largest >= end:
            raise IndexError(
                f"token id {largest} has no embedding: the base's ids end before {self.first} and the adapter's new tokens "
                f"at {end - 1}; encode with the tokenizer that was saved with the adapter"
            )


class HeadRows(nn.Module):
    """An output head whose logits of the ids from ``first`` on come from a small table of ours.

    Ids within the base's table are overridden in their place, ids beyond it are appended. The base's own bias does not
    reach them.

    Args:
        base: the base model's head, ``[…, d]`` → ``[…, V]``; frozen.
        first: first id held here.
        rows: ``[count, d]``: the embedding's `TokenRows.rows` where the base ties its head to its embedding, else rows of
            the head's own.
        tied: whether they are the embedding's, which then declares them as its own.
    """

    def __init__(self, base: nn.Module, first: int, rows: nn.Parameter, tied: bool) -> None:
        super().__init__()
        self.base, self.first, self.rows, self.tied = base, first, rows, tied

    def adapter_tensors(self) -> dict[str, nn.Parameter]:
        """As `adapter_parameters`."""
        return self.adapter_parameters()

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """What training changes and a checkpoint holds beyond the embedding's rows."""
        return {} if self.tied else {"rows": self.rows}

    @property
    def weight(self) -> Tensor:
        """The base's table."""
        return _plain(self.base).weight

    @property
    def out_features(self) -> int:
        """V': how many logits come out."""
        return max(self.weight.shape[0], self.first + len(self.rows))

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[…, d]`` → logits ``[…, V']``."""
        logits = self.base(hidden)
        own = F.linear(hidden, self.rows.to(hidden.dtype)).to(logits.dtype)
        return torch.cat([logits[..., : self.first], own, logits[..., self.first + len(self.rows) :]], dim=-1)


def add_token_rows(model: Any, new_ids: Sequence[int], head: bool = False) -> None:
    """Give ``model`` trainable rows for new tokens; its tables keep their objects, shapes and bytes.

    Args:
        model: a causal LM; changed in place.
        new_ids: consecutive, as `hyperlora.tokens.add_markers` returns them; none leaves the model as it is.
        head: also let the model produce these tokens. Where they lie beyond its table, ``config.vocab_size`` grows to the
            new number of logits, because its loss and beam search count with it.

    Raises:
        InputError: there are rows already, ids are not consecutive, or there is no head to extend.
    """
    ids = list(new_ids)
    if not ids:
        return
    table = model.get_input_embeddings()
    if isinstance(table, TokenRows):
        raise InputError("this model already has rows for new tokens; load a fresh base model")
    if ids != list(range(ids[0], ids[0] + len(ids))):
        raise InputError(f"new token ids {ids[:4]}… are not consecutive; add all new tokens to the tokenizer in one go")
    if not head:
        model.set_input_embeddings(TokenRows(table, ids[0], len(ids)))
        return
    output = _head(model, ids[0])
    weight, rows = _plain(output).weight, TokenRows(table, ids[0], len(ids))
    tied = weight is table.weight
    own = rows.rows if tied else nn.Parameter(fresh_rows(weight, len(ids)))
    model.set_input_embeddings(rows)
    model.set_output_embeddings(HeadRows(output, ids[0], own, tied))
    _follow(model, tied)


def _head(model: Any, first: int) -> Any:
    """The output head of ``model``, fit for new columns from ``first`` on."""
    output = model.get_output_embeddings()
    if output is None:
        raise InputError(f"{type(model).__name__} has no output head; give a causal LM, or leave head rows out")
    if is_four_bit_linear(output):
        raise InputError("the output head is in 4 bits, so no rows can be made after its own; keep it dense in loading")
    rows = len(_plain(output).weight)
    if first > rows:
        raise InputError(
            f"new tokens begin at {first} but the head ends at {rows}: the tokens between would have no logit; give the "
            "tokenizer that belongs to this base"
        )
    return output


def _plain(head: Any) -> Any:
    """The base's own head, also where an adapter is wrapped around it."""
    return getattr(head, "base_layer", head)


def _follow(model: Any, tied: bool) -> None:
    """Let the library's own bookkeeping (vocabulary size, tied names) follow the wrapped tables."""
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    model.config.get_text_config().vocab_size = output.out_features
    if hasattr(model, "vocab_size"):
        model.vocab_size = output.out_features
    if tied:
        names = {id(module): name for name, module in model.named_modules()}
        source, target = names[id(table)], names[id(output)]
        keys = {f"{target}.base.weight": f"{source}.base.weight", f"{target}.rows": f"{source}.rows"}
        model._tied_weights_keys = model.all_tied_weights_keys = keys
