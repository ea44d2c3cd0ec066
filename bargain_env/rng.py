"""Randomness as a pure function of where it is used.

Every number drawn anywhere in the project is ``philox(key=run seed, counter=(episode, seat, turn, stream))``. Nothing is
carried from one draw to the next, so a game gives the same bytes whether it is played alone, in a batch of any size, in
any order, or resumed on another machine.

The generator is Philox4x32 with 10 rounds: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers:
as easy as 1, 2, 3", SC'11, section 4.3.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10


class Stream(IntEnum):
    """Independent sources of randomness inside one (episode, seat, turn)."""

    POLICY = 0
    SCENARIO = 1
    PAIRING = 2
    SPLIT = 3


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Philox4x32-10 of each row of ``counter``.

    Args:
        counter: ``[B, 4]`` 32-bit words held in uint64.
        key: two 32-bit words.

    Returns:
        ``[B, 4]`` random 32-bit words held in uint64.
    """
    c0, c1, c2, c3 = (counter[:, i] for i in range(4))
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1)


def uniform(
    seed: ArrayLike,
    episode: ArrayLike,
    *,
    seat: int = 0,
    turn: int = 0,
    stream: Stream = Stream.POLICY,
    n: int = 1,
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one row for each episode.

    Args:
        seed: run seed, a scalar or ``[B]``; at most 63 bits.
        episode: ``[B]`` episode ids, non-negative.
        seat: 0 buyer, 1 seller.
        turn: 1-based turn, 0 outside the game; below 2**24.
        stream: what the numbers are for.
        n: how many numbers a row.

    Returns:
        ``[B, n]`` float64 with 53 random bits each.
    """
    episodes = np.atleast_1d(np.asarray(episode)).astype(np.uint64)
    seeds = np.broadcast_to(np.asarray(seed), episodes.shape).astype(np.uint64)
    out = np.empty((len(episodes), n))
    for run_seed in np.unique(seeds):
        rows = np.flatnonzero(seeds == run_seed)
        out[rows] = _uniform_for_seed(int(run_seed), episodes[rows], int(seat), turn, int(stream), n)
    return out


def _uniform_for_seed(
    seed: int, episodes: NDArray[np.uint64], seat: int, turn: int, stream: int, n: int
) -> NDArray[np.float64]:
    blocks = (n + 1) // 2
    counter = np.empty((len(episodes), blocks, 4), dtype=np.uint64)
    counter[:, :, 0] = (episodes & _LOW)[:, None]
    counter[:, :, 1] = (episodes >> _SHIFT)[:, None]
    counter[:, :, 2] = (seat << 24) | turn
    counter[:, :, 3] = (stream << 24) | np.arange(blocks, dtype=np.uint64)
    words = philox(counter.reshape(-1, 4), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    high, low = words[:, 0::2] >> np.uint64(5), words[:, 1::2] >> np.uint64(6)
    doubles = (high.astype(np.float64) * 67108864.0 + low.astype(np.float64)) / 9007199254740992.0
    return doubles.reshape(len(episodes), 2 * blocks)[:, :n]


def normal(seed: ArrayLike, episode: ArrayLike, *, stream: Stream, turn: int = 0) -> NDArray[np.float64]:
    """Standard normal numbers, one for each episode: ``[B]``, by the Box-Muller transform."""
    u = uniform(seed, episode, stream=stream, turn=turn, n=2)
    return np.sqrt(-2.0 * np.log1p(-u[:, 0])) * np.cos(2.0 * np.pi * u[:, 1])
