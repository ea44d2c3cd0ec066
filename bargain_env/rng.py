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
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10
_27, _26 = np.uint64(5), np.uint64(6)  # shifts that leave that many of 32 bits
_CHUNK = 2048  # rows at a time: what the ten rounds touch then stays in cache


class Stream(IntEnum):
    """Independent sources of randomness inside one (episode, seat, turn)."""

    POLICY = 0
    SCENARIO = 1
    PAIRING = 2
    SPLIT = 3


Words = NDArray[np.uint64]


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Philox4x32-10.

    Args:
        counter: four 32-bit words, each ``[B]``, held in uint64.
        key: two 32-bit words, each a scalar or ``[B]``.

    Returns:
        Four random 32-bit words, each ``[B]``, held in uint64.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = product1 >> _SHIFT
        c0 ^= c1
        c0 ^= k0
        c2 = product0 >> _SHIFT
        c2 ^= c3
        c2 ^= k1
        product1 &= _LOW
        product0 &= _LOW
        c1, c3 = product1, product0
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def uniform(
    seed: ArrayLike,
    episode: ArrayLike,
    *,
    seat: int = 0,
    turn: ArrayLike = 0,
    stream: Stream = Stream.POLICY,
    n: int = 1,
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), one row for each episode.

    Args:
        seed: run seed, a scalar or ``[B]``; at most 63 bits.
        episode: ``[B]`` episode ids, non-negative.
        seat: 0 buyer, 1 seller.
        turn: 1-based turn, 0 outside the game, a scalar or ``[B]``; below 2**24.
        stream: what the numbers are for.
        n: how many numbers a row.

    Returns:
        ``[B, n]`` float64 with 53 random bits each.
    """
    episodes = np.atleast_1d(np.asarray(episode)).astype(np.uint64)
    out = np.empty((len(episodes), n))
    for start in range(0, len(episodes), _CHUNK):
        rows = slice(start, start + _CHUNK)
        out[rows] = _uniform(_part(seed, rows), episodes[rows], int(seat), _part(turn, rows), int(stream), n)
    return out


def _part(value: ArrayLike, rows: slice) -> NDArray[np.uint64]:
    """The part of a per-episode array that ``rows`` asks for; a scalar serves all rows."""
    array = np.asarray(value).astype(np.uint64)
    return array[rows] if array.ndim else array


def _uniform(seeds: Words, episodes: Words, seat: int, turns: Words, stream: int, n: int) -> NDArray[np.float64]:
    out = np.empty((len(episodes), n))
    where = np.broadcast_to(np.uint64(seat << 24) | turns, episodes.shape)
    key = (_common(seeds & _LOW), _common(seeds >> _SHIFT))
    low, high = episodes & _LOW, episodes >> _SHIFT
    for block in range((n + 1) // 2):
        purpose = np.full(len(episodes), (stream << 24) | block, dtype=np.uint64)
        c0, c1, c2, c3 = philox((low, high, where, purpose), key)
        out[:, 2 * block] = _double(c0, c1)
        if 2 * block + 1 < n:
            out[:, 2 * block + 1] = _double(c2, c3)
    return out


def _common(values: Words) -> Words:
    """One number for all where they are equal: a scalar key is cheaper than an array."""
    return values.reshape(-1)[0] if values.ndim and (values == values[0]).all() else values


def _double(first: Words, second: Words) -> NDArray[np.float64]:
    """``[B]`` in [0, 1) from 27 and 26 bits of two words."""
    return ((first >> _27).astype(np.float64) * 67108864.0 + (second >> _26).astype(np.float64)) / 9007199254740992.0


def normal(seed: ArrayLike, episode: ArrayLike, *, stream: Stream, turn: int = 0) -> NDArray[np.float64]:
    """Standard normal numbers, one for each episode: ``[B]``, by the Box-Muller transform."""
    u = uniform(seed, episode, stream=stream, turn=turn, n=2)
    return np.sqrt(-2.0 * np.log1p(-u[:, 0])) * np.cos(2.0 * np.pi * u[:, 1])
