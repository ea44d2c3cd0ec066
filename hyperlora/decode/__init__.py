"""Exact decoding of the two-form grammar: probabilities of ACCEPT and of every price, for many games at once."""

from .cache import PrefixCache
from .grammar import Grammar, compile_grammar
from .modes import Mode
from .results import Decisions, DecodeStats, PriceDistribution
from .scorer import Scorer

__all__ = [
    "Decisions",
    "DecodeStats",
    "Grammar",
    "Mode",
    "PrefixCache",
    "PriceDistribution",
    "Scorer",
    "compile_grammar",
]
