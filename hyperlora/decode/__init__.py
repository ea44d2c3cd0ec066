"""Exact decoding of the two-form grammar: probabilities of ACCEPT and of every price, for many games at once."""

from .grammar import Grammar, compile_grammar
from .scorer import Decisions, Scorer

__all__ = ["Decisions", "Grammar", "Scorer", "compile_grammar"]
