"""A chat model's answers as moves: `TextPolicy`."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from agents.guards import check_guard, guarded
from bargain_env.core import quantise_array
from bargain_env.policy import Moves, SeatGames, SeatView

from .answers import Answer, read_answer
from .chat import ChatModel, Question, Reply
from .prompt import Facts, build_text_prompt, check_style, facts_of

SEEDS = 2**31
"""Servers take seeds of 31 bits."""
WAITS = 20
"""Uniform numbers a decision has for the waits between attempts."""


class TextPolicy:
    """A `bargain_env.Policy` played by a language model that was never trained for it, by prompt alone.

    It has what Janus has: its seat's view and no more, the last eight offers, and the same guard. It decides by the view
    alone; whether the same question always brings the same answer is up to the model, so its seed is part of the question.
    No reply, a reply that is no answer, and an offer outside the public range are invalid turns, which the game counts. An
    acceptance that the guard refuses becomes an offer of the reservation, as a text names nothing else to offer.

    Args:
        model: who answers.
        guard: see `agents.guards`.
        style: of the prompt, see `agents.text.prompt.STYLES`.

    Raises:
        InputError: unknown guard or style.
    """

    memoryless = True
    mixed_turns = True

    def __init__(self, model: ChatModel, guard: str = "monotone", style: str = "plain") -> None:
        self.name = "text"
        self.model, self.guard, self.style = model, check_guard(guard), check_style(style)

    def __deepcopy__(self, memo: dict[int, Any]) -> TextPolicy:
        """Another that asks the same model: there is no state to part, and nobody wants the weights twice."""
        return copy.copy(self)

    def reset(self, games: SeatGames) -> None:
        """Nothing to forget."""

    def questions(self, view: SeatView) -> list[Question]:
        """What the model is asked in each row."""
        return self._questions(view, facts_of(view))

    def _questions(self, view: SeatView, facts: list[Facts]) -> list[Question]:
        drawn = view.games.uniform(view.turn, 1 + WAITS).tolist()
        return [
            Question(build_text_prompt(now, self.style), int(seed * SEEDS), tuple(jitter))
            for now, (seed, *jitter) in zip(facts, drawn, strict=True)
        ]

    def act(self, view: SeatView) -> Moves:
        """Ask, read, guard."""
        games, facts = view.games, facts_of(view)
        replies = self.model.answer(self._questions(view, facts)) if len(view) else []
        answers = [_read(reply, now) for reply, now in zip(replies, facts, strict=True)]
        accept = np.array([answer is not None and answer.accept for answer in answers], dtype=bool)
        price = quantise_array([np.nan if answer is None else answer.price for answer in answers], games.tick)
        with np.errstate(invalid="ignore"):
            price = np.where((price >= games.price_low) & (price <= games.price_high), price, np.nan)
        return guarded(self.guard, view, accept, price)


def _read(reply: Reply, now: Facts) -> Answer | None:
    """What a reply says, if it says anything."""
    shown = (now.reservation, now.low, now.high, *(price for _, _, price in now.offers))
    return None if reply.text is None else read_answer(reply.text, now.standing, reply.cut, shown)
