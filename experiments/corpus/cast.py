"""Who plays whom in a collection: the players that were named, who of them meets in each game, and their policies.

A player is a registered strategy, a drawn member of a family, a learned policy, or a Janus. A Janus is asked for a ρ, its
own in each game unless one was named with it, and what it was asked for is in its name: ``janus-nano(target=0.3712)``, as in
those of trained teachers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import agents
from agents.sampling import label
from agents.teacher import Teacher
from bargain_env import Policy, Preset, RoutedPolicy, Scenarios, Seat, rng
from bargain_env.errors import InputError
from experiments.match import pairs
from experiments.match.arms import SHIPPED, JanusOptions, JanusSpec, janus_spec
from experiments.match.identity import ROOT, tree_digest
from experiments.match.populations import POPULATION, population
from experiments.match.specs import split

from . import teachers

OPTIONS = JanusOptions(threads=1)
"""How a Janus plays here: with its default decoding and guard, and a thread for each worker."""
FORMS = ("learned", "text", "best_response", "population", "janus", "lora")
"""What stands before a colon that parts no pair."""
_AT = re.compile(r"(?P<spec>.+?)(?:@(?P<typed>\d*\.?\d+)|\((?:target=)?(?P<named>\d*\.?\d+)\))")
_TURN = 3
"""Where teachers and sparring partners are drawn too, they are so with turns 1 and 2, and pairs with 0."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who may play whom.

    Attributes:
        names: the players, without repeats. A Janus that has no ρ in its name is given one in each game.
        pairs: buyer and seller, numbers of ``names``; where there are none, everybody meets everybody, themselves included.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...] = ()

    def draw(self, games: Scenarios) -> NDArray[np.object_]:
        """``[B, 2]`` names of buyer and seller: of all pairs, each as likely as any other."""
        if self.pairs:
            chosen = np.array(self.pairs)[pairs.draw(games, len(self.pairs))[:, 0]]
        else:
            chosen = pairs.draw(games, len(self.names))
        found = np.array(self.names, dtype=object)[chosen]
        for number, name in enumerate(self.names):
            if janus_spec_of(name) is not None and teachers.ASKED.fullmatch(name) is None:
                _ask(found, chosen == number, name, games)
        return found

    @property
    def scripted(self) -> bool:
        """Whether all moves are the same in whatever batch they are made; those of a language model may not be."""
        return not any(":" in name or janus_spec_of(name) for name in self.names)

    def shaping(self) -> dict[str, Any]:
        """What decides who plays, JSON-ready: names, pairs, and what the files hold that players are read from."""
        found: dict[str, Any] = {"strategies": list(self.names)}
        if self.pairs:
            found["pairs"] = [[self.names[buyer], self.names[seller]] for buyer, seller in self.pairs]
        places = {name: place for name in self.names if (place := _source(name)) is not None}
        if places:
            found["players_sha256"] = {name: tree_digest([place]) for name, place in places.items()}
        return found


def resolve(text: str, seed: int) -> Cast:
    """The cast of a comma list: of players and groups of them, or of pairs ``BUYER:SELLER`` of these.

    Groups are ``train`` (every registered strategy that may train) and ``population:N``, see
    `experiments.match.populations`. A pair of groups is all pairs of their members.

    Args:
        text: as typed.
        seed: of populations.

    Raises:
        InputError: unknown names, players among pairs, or somebody who is held out of training data.
    """
    specs = split(text, "--strategies")
    parted = [_parted(spec) for spec in specs]
    if any(parted) and not all(parted):
        single = specs[parted.index(None)]
        raise InputError(
            f"--strategies {text!r} names pairs and {single!r}, which is none; write BUYER:SELLER for every game, or none"
        )
    sides = [[_named(side, seed) for side in (sides or (spec,))] for spec, sides in zip(specs, parted, strict=True)]
    names = list(dict.fromkeys(name for part in sides for side in part for name in side))
    _refuse_held_out(names)
    couples = [(b, s) for part in sides if len(part) == 2 for b in part[0] for s in part[1]]
    return Cast(tuple(names), tuple((names.index(b), names.index(s)) for b, s in dict.fromkeys(couples)))


def policy(names: NDArray[np.object_], preset: Preset, trained: Path | None) -> Policy:
    """The players ``names`` ``[B]`` of a seat as one; whoever is asked for ρ plays all its games as one network.

    Args:
        names: who plays each game.
        preset: of the games.
        trained: the file of trained teachers; None where there are none.

    Raises:
        InputError: there is no such player, or it cannot be loaded.
    """
    known = pa.array(names, pa.string()).dictionary_encode()
    labels, code = known.dictionary.to_pylist(), known.indices.to_numpy()
    asked = [None if match is None else match["who"] for match in map(teachers.ASKED.fullmatch, labels)]
    players = list(dict.fromkeys(who or name for who, name in zip(asked, labels, strict=True)))
    number = {name: k for k, name in enumerate(players)}
    place = np.array([number[who or name] for who, name in zip(asked, labels, strict=True)])[code]
    rho = teachers.asked_rho(np.array(labels, dtype=object))[code]
    made = [
        _made(who, rho[place == k], preset, trained) if who in asked else agents.make_for(preset, who)
        for k, who in enumerate(players)
    ]
    return made[0] if len(made) == 1 else RoutedPolicy(made, place)


def load(cast: Cast, preset: Preset) -> None:
    """Load every Janus: one that cannot be should not be found out after an hour of play.

    Raises:
        InputError: as `policy`.
    """
    for spec in dict.fromkeys(found for name in cast.names if (found := janus_spec_of(name)) is not None):
        spec.policy(np.array([0.5]), OPTIONS, preset.name)


def janus_spec_of(name: str) -> JanusSpec | None:
    """The Janus that a player is, with a ρ in its name or without; None for any other.

    Raises:
        InputError: its adapter is not there.
    """
    return _janus(name)[0]


def _janus(text: str) -> tuple[JanusSpec | None, float | None]:
    """The Janus and its ρ that ``text`` names: ``SPEC``, ``SPEC@0.3``, or ``SPEC(0.3)`` as tournaments name it."""
    match = None if Path(text.partition(":")[2] or " ").is_dir() else _AT.fullmatch(text)
    spec = None if match is None else janus_spec(match["spec"])
    if match is None or spec is None:
        return janus_spec(text), None
    return spec, float(match["typed"] or match["named"])


def _made(who: str, rho: NDArray[np.float64], preset: Preset, trained: Path | None) -> Policy:
    spec = None if who == teachers.TRAINED else janus_spec(who)
    if spec is not None:
        return spec.policy(rho, OPTIONS, preset.name)
    if trained is None:
        raise InputError(f"{who!r} plays from a file; name it with --teacher")
    return Teacher(trained, rho)


def _ask(names: NDArray[np.object_], whose: NDArray[np.bool_], who: str, games: Scenarios) -> None:
    """Give the player ``who`` a ρ, drawn evenly from [0, 1], wherever it sits (``[B, 2]``)."""
    for seat in Seat:
        mine = np.flatnonzero(whose[:, seat])
        drawn = rng.uniform(games.seed[mine], games.id[mine], seat=seat, turn=_TURN, stream=rng.Stream.PAIRING)
        asked = drawn[:, 0].round(teachers.DIGITS).tolist()
        names[mine, seat] = [label(who, {"target": value}) for value in asked]


def _parted(spec: str) -> tuple[str, str] | None:
    """Buyer and seller of a pair; None if ``spec`` names players of both seats."""
    for at in (at for at, character in enumerate(spec) if character == ":"):
        if _may_be_player(spec[:at]) and _may_be_player(spec[at + 1 :]):
            return spec[:at], spec[at + 1 :]
    head, colon, rest = spec.partition(":")
    return (head, rest) if colon and head not in FORMS else None


def _may_be_player(text: str) -> bool:
    kind, colon, rest = text.partition(":")
    if colon:
        return kind in FORMS and bool(rest)
    name = re.split(r"[(@]", text)[0]
    families = {agents.describe(known).family for known in agents.list_strategies()}
    return name in {"train", SHIPPED, *agents.list_strategies(), *families}


def _named(spec: str, seed: int) -> list[str]:
    """The players of one side or part of the list."""
    if spec == "train":
        return agents.list_strategies(split="train")
    if spec.startswith(POPULATION):
        return population(spec, seed)
    janus, rho = _janus(spec)
    if janus is None:
        return [agents.describe(spec).name]
    if not teachers.ASKED.fullmatch(f"{janus.label}(target=0.5)"):
        raise InputError(f"--strategies {spec!r} follows no rho; name janus-nano, janus:PATH or lora, or leave it out")
    if rho is None:
        return [janus.label]
    if rho > 1:
        raise InputError(f"--strategies {spec!r}: rho {rho} must lie in [0, 1]")
    return [label(janus.label, {"target": round(rho, teachers.DIGITS)})]


def _refuse_held_out(names: Sequence[str]) -> None:
    held_out = [name for name in names if janus_spec_of(name) is None and not agents.describe(name).may_train]
    if held_out:
        raise InputError(f"strategies {', '.join(held_out)} are held out of training data; drop them from --strategies")


def _source(name: str) -> Path | None:
    """The file or folder that a player is read from."""
    spec = janus_spec_of(name)
    if spec is None:
        place = Path(name.partition(":")[2] or " ")
        return place if place.exists() else None
    return Path(spec.adapter) if spec.given else ROOT / "hyperlora" / "nano"
