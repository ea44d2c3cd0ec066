"""What a chat model is to a player: it is asked a batch of questions and gives a reply to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Question:
    """One decision, put into words.

    Attributes:
        prompt: the user's message; the model is told nothing else and remembers nothing.
        seed: of the model's sampling, 31 bits; a pure function of (run seed, episode, seat, turn).
        jitter: uniform numbers in [0, 1) for the waits before a second, third, … attempt; likewise.
    """

    prompt: str
    seed: int = 0
    jitter: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: the answer; None where there was none to be had.
        cut: the model was stopped before it had finished.
    """

    text: str | None
    cut: bool = False


class ChatModel(Protocol):
    """Anything that answers questions; `Endpoint` over HTTP, `LocalChat` in this process."""

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """One reply for each question, in order."""
