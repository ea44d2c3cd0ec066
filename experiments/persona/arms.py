"""The arms of the comparison: what each predicts for the same decisions, with the true course of the game before them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bargain_env import rng
from bargain_env.errors import InputError
from experiments.persona.folder import HYPERLORA, PER_USER, POOLED, PersonaData
from experiments.persona.measures import Predicted, Truth, is_answer
from experiments.persona.training import RECORD
from hyperlora.adapter_files import read_config
from hyperlora.adapters.likelihood import row_losses, under_adapters
from hyperlora.adapters.peft_folder import LoRA, read_peft
from hyperlora.adapters.rows import Weights, bind_adapters, inject_rows, stack_adapters
from hyperlora.base import load_base
from hyperlora.binding import bind_rho
from hyperlora.checkpoint import load_hyperlora_adapter
from hyperlora.data import NegotiationDataset
from hyperlora.decode.modes import Mode
from hyperlora.decode.scorer import Scorer
from hyperlora.peft_format import PEFT_CONFIG

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BASELINE, PER_PERSONA, POOLED_ARM, GATED, SWAPPED = "baseline", "per_persona", "pooled", "hyperlora", "swapped"
_SWAP_TURN = 13


class Arms:
    """Everything that predicts: the base, bare and under adapters, and the HyperLoRA.

    Args:
        data: the personas.
        model_name: the base of all adapters.
        prompt_format: of their training.
        decode: mode of the answers; see `hyperlora.decode.scorer.Scorer`.

    Attributes:
        names: of the arms there are.
        dataset: every decision as tokens.

    Raises:
        InputError: an adapter is missing or belongs to another base or other data.
    """

    def __init__(self, data: PersonaData, model_name: str, prompt_format: int, decode: str = "greedy") -> None:
        self.data, self.decode = data, Mode.parse(decode)
        self.model, self.tokenizer = load_base(model_name)
        self.dataset: NegotiationDataset = data.dataset(self.tokenizer, prompt_format)
        self._may_accept = data.facts(prompt_format).may_accept
        self.own = [self._read(data.folder / PER_USER / persona.id) for persona in data.personas]
        pooled = data.folder / POOLED
        self.pooled = self._read(pooled) if (pooled / PEFT_CONFIG).is_file() else None
        inject_rows(self.model, _suffixes(self.own[0]))
        self.weights = stack_adapters([lora.scaled() for lora in self.own])
        self.others = swapped(data)
        self.gated: Any = None
        gated = data.folder / HYPERLORA
        if (gated / PEFT_CONFIG).is_file():
            self._refuse_other_data(gated, read_config(gated).get("data_sha256"))
            self.gated = load_hyperlora_adapter(gated, model_name).model
        self.names = [
            BASELINE,
            PER_PERSONA,
            *([POOLED_ARM] if self.pooled else []),
            *([GATED] if self.gated is not None else []),
            *([SWAPPED] if len(self.own) > 1 else []),
        ]

    def _read(self, folder: Path) -> LoRA:
        if not (folder / PEFT_CONFIG).is_file():
            raise InputError(
                f"{folder} is missing; run `python -m experiments.personas train {self.data.folder}` first"
            )
        lora = read_peft(folder)
        if lora.metadata.get("base_digest") != self.model.base_digest:
            raise InputError(f"{folder} was trained on another base; give the --model-name that it was trained on")
        try:
            trained_on = json.loads((folder / RECORD).read_text()).get("data_sha256")
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"{folder / RECORD} is missing or damaged ({error}); {self._anew(folder)}") from error
        self._refuse_other_data(folder, trained_on)
        return lora

    def _refuse_other_data(self, folder: Path, trained_on: str | None) -> None:
        if trained_on != self.data.digest:
            raise InputError(f"{folder} was trained on other games than {self.data.folder} holds; {self._anew(folder)}")

    def _anew(self, folder: Path) -> str:
        return f"remove {folder} and run `python -m experiments.personas train {self.data.folder}` again"

    def truth(self, rows: Ints) -> Truth:
        """What was done in these rows."""
        texts = []
        for row in rows:
            start, end = self.dataset.offsets[row] + self.dataset.prompt_lengths[row], self.dataset.offsets[row + 1]
            texts.append(self.tokenizer.decode(self.dataset.ids[start : end - 1].tolist()).strip())
        accept = np.array([text == "ACCEPT" for text in texts], dtype=bool)
        price = [
            np.nan if done else float(text.removeprefix("OFFER")) for done, text in zip(accept, texts, strict=True)
        ]
        owner = self.data.owner[rows]
        return Truth(accept, np.array(price), texts, owner, owner * 1_000_000 + self.data.game[rows])

    def prompts(self, rows: Ints) -> list[list[int]]:
        """Token ids of the prompts of these rows."""
        starts, ends = self.dataset.offsets[rows], self.dataset.offsets[rows] + self.dataset.prompt_lengths[rows]
        return [self.dataset.ids[a:b].tolist() for a, b in zip(starts, ends, strict=True)]

    def log_likelihood(self, arm: str, rows: Ints) -> Floats:
        """``[K]`` log P of what was done, in nats a decision; adapters of several personas share a batch."""
        if arm == GATED:
            bound = lambda places: bind_rho(self.gated, self.dataset.rho[rows[places]].tolist())  # noqa: E731
            return -row_losses(self.gated, self.dataset, rows, bound)[0]
        weights, which = self._adapters(arm, rows)
        return -row_losses(self.model, self.dataset, rows, under_adapters(self.model, weights, which))[0]

    def _adapters(self, arm: str, rows: Ints) -> tuple[Weights, Ints]:
        owner = self.data.owner[rows]
        if arm == POOLED_ARM:
            assert self.pooled is not None
            return self.pooled.scaled(), np.zeros(len(rows), dtype=np.int64)
        if arm == BASELINE:
            return self.weights, np.full(len(rows), -1)
        return self.weights, owner if arm == PER_PERSONA else self.others[owner]

    def predict(self, arm: str, rows: Ints, tell: Callable[[int, int], None] = lambda done, total: None) -> Predicted:
        """Legal answers, what is written freely, and log-likelihoods of these rows."""
        accept, price = np.zeros(len(rows), dtype=bool), np.full(len(rows), np.nan)
        invalid, text = np.zeros(len(rows), dtype=bool), np.empty(len(rows), dtype=object)
        model = self.gated if arm == GATED else self.model
        strict, free = (Scorer(model, self.tokenizer, mode) for mode in (self.decode, "free"))
        done = 0
        for places, bound, rho in self._batches(arm, rows):
            prompts, may_accept = self.prompts(rows[places]), self._may_accept[rows[places]]
            with bound:
                decided = strict.decide(prompts, rho, may_accept)
                written = free.decide(prompts, rho, may_accept)
            accept[places], price[places] = decided.accept, np.where(decided.accept, np.nan, decided.price)
            text[places] = [t.strip() for t in written.text]
            invalid[places] = [not is_answer(t, may) for t, may in zip(text[places], may_accept, strict=True)]
            done += len(places)
            tell(done, len(rows))
        return Predicted(accept, price, self.log_likelihood(arm, rows), invalid, text.tolist())

    def _batches(self, arm: str, rows: Ints) -> Any:
        """Places in ``rows``, what to bind for them, and their ρ: one adapter at a time, the rest at once."""
        everything = np.arange(len(rows))
        if arm == GATED:
            yield everything, contextlib.nullcontext(), self.dataset.rho[rows].astype(np.float64)
            return
        weights, which = self._adapters(arm, rows)
        for adapter in np.unique(which).tolist():
            yield np.flatnonzero(which == adapter), bind_adapters(self.model, weights, adapter), None


def _suffixes(lora: LoRA) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition(".")[2] for name in lora.layers))


def swapped(data: PersonaData, among: Sequence[int] | None = None) -> Ints:
    """Somebody else for each persona ``[P]``, or for each of ``among`` one of these, in their order; nobody twice.

    Somebody of the same seat and preset, so that the adapter has learned the same seat and prices, and only the style is
    another's; of another family wherever the group has enough of others. Personas that are alone with their seat and
    preset are a group of their own; if there is but one of them, it joins a group of its seat. `swap_counts` counts both.
    """
    draws = rng.uniform(int(data.settings["seed"]), np.arange(len(data.personas)), turn=_SWAP_TURN,
                        stream=rng.Stream.PAIRING)[:, 0]  # fmt: skip
    who = list(range(len(draws)) if among is None else among)
    other: dict[int, int] = {}
    for group in _swap_groups(data, who):
        members: dict[str, list[int]] = {}
        for k in sorted(group, key=lambda k: draws[k]):
            members.setdefault(data.personas[k].family, []).append(k)
        order = [k for family in members.values() for k in family]
        # Families stand in blocks, so a shift by the longest leaves as few in their own as there can be.
        shift = max(map(len, members.values())) if len(members) > 1 else 1
        other.update(zip(order, [*order[shift:], *order[:shift]], strict=True))
    return np.array([other[k] for k in who], dtype=np.int64)


def _swap_groups(data: PersonaData, who: Sequence[int]) -> list[list[int]]:
    """Who may swap with whom: those of one seat and preset, and those who are alone."""
    places: dict[tuple[str, str], list[int]] = {}
    for k in who:
        places.setdefault((data.personas[k].seat, data.personas[k].preset), []).append(k)
    groups = [group for group in places.values() if len(group) > 1]
    alone = [group[0] for group in places.values() if len(group) == 1]
    if len(alone) == 1 and groups:
        seat = data.personas[alone[0]].seat
        next((group for group in groups if data.personas[group[0]].seat == seat), groups[0]).append(alone[0])
    elif alone:
        groups.append(alone)
    return groups


def swap_counts(data: PersonaData, others: Ints) -> dict[str, int]:
    """How many personas there are, and how many `swapped` gave one of another seat or preset, or of their own family."""
    pairs = [(one, data.personas[k]) for one, k in zip(data.personas, others.tolist(), strict=True)]
    return {
        "personas": len(pairs),
        "other_seat_or_preset": sum((a.seat, a.preset) != (b.seat, b.preset) for a, b in pairs),
        "same_family": sum(a.family == b.family for a, b in pairs),
    }


def samples(arms: Arms, truth: Truth, predicted: dict[str, Predicted], rows: Ints, count: int) -> list[dict[str, Any]]:
    """``count`` of the decisions, spread over the personas, with what every arm says."""
    picked = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64))
    found = []
    for i in picked.tolist():
        persona = arms.data.personas[int(truth.persona[i])]
        found.append(
            {
                "persona": persona.id,
                "strategy": persona.strategy,
                "game": int(arms.data.game[rows[i]]),
                "turn": arms.data.table["turn"][int(rows[i])].as_py(),
                "prompt": arms.tokenizer.decode(arms.prompts(rows[i : i + 1])[0]),
                "target": truth.text[i],
                "arms": {arm: _answer(p, i) for arm, p in predicted.items()},
            }
        )
    return found


def _answer(p: Predicted, i: int) -> dict[str, Any]:
    answer = "ACCEPT" if p.accept[i] else f"OFFER {p.price[i]:.4f}"
    return {"answer": answer, "written": p.text[i], "log_likelihood": float(p.log_likelihood[i])}


def chosen(data: PersonaData, count: int) -> list[int]:
    """``count`` personas, spread evenly over the list, in which families take turns."""
    total: Sequence[int] = range(len(data.personas))
    return [total[i * len(total) // min(count, len(total))] for i in range(min(count, len(total)))]
