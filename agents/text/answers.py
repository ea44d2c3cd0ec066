"""ACCEPT or OFFER x out of free text.

What an answer says is decided by the first of these rules that applies, after a model's reasoning and all markup are gone:

1. A line that is nothing but an answer: ``ACCEPT``, ``OFFER 905.50``, ``Final answer: offer $1,050``, or a whole text
   that is just a price; of several such lines the first.
2. An acceptance in running text, ACCEPT in capitals or "I accept", that is not negated, is under no condition, and names
   no price but the standing one.
3. The first price that follows OFFER in capitals; failing that "I offer", "my counteroffer is" and the like, not negated.
4. Where nothing speaks of accepting, the one price marked as money that the question did not name.

Everything else is no answer: two forms with "or" between them, a range of prices, a share. A price that is cut off by the
end of a reply which was stopped early is no price. Thousands may be set apart by commas or spaces, and decimals by a point,
or by a comma if one or two digits follow.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass

LONGEST = 20_000
"""Characters of an answer that are read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A move, as a text says it.

    Attributes:
        accept: it accepts the standing offer.
        price: otherwise, what it offers, in currency units.
    """

    accept: bool
    price: float = float("nan")


_DIGITS = (  # at most 15 digits: no price has more, and a text of nothing but digits is soon read
    r"\d{1,3}(?:[, ]\d{3}){1,4}(?:\.\d{1,15})?|\d{1,3}(?:\.\d{3}){1,4},\d{1,2}"
    r"|\d{1,15},\d{1,2}|\d{1,15}(?:\.\d{1,15})?|\.\d{1,15}"
)
_MARK = r"(?:US\s?)?[$€£]|\b(?:USD|EUR)\b"
_UNIT = r"\s?(?:USD|EUR|dollars?|euros?|bucks|[$€£])(?![\w%])"
_PRICE = (
    rf"(?P<mark>{_MARK})?\s?(?<!\d)(?<!\d[.,])(?P<price>-?(?:{_DIGITS}))(?![\d%]|[.,]\d)(?:(?P<unit>{_UNIT})|(?!\w))"
)
_NO_RANGE = r"(?!\s*(?:-|–|—|to|or)\s*[$€£]?\s?\d)"
_TO = r"(?:[\s:=,–—\"']|-\s|\b(?:price|amount|you|your|of|at|with|for|a|an|is|be|counter-?offer|the)\b)*"
"""What may stand between OFFER and its price."""

_LABEL = r"(?:(?:my|the|final|your)\s+)*(?:answer|response|reply|decision|action|move|choice)\s*(?:is\s*)?[:=–—-]?\s*"
_ALONE = re.compile(rf"(?:{_LABEL})?(?:(?P<accept>(?:I\s+)?ACCEPT(?:ED)?)|(?:I\s+)?OFFER{_TO}{_PRICE})", re.IGNORECASE)
_JUST_A_PRICE = re.compile(_PRICE, re.IGNORECASE)
_OFFER = re.compile(rf"\bOFFER\b{_TO}(?i:{_PRICE}){_NO_RANGE}")
_MY_OFFER = re.compile(
    r"(?:\b(?:I|we)(?:'d|'ll)?(?:\s+(?!(?:the|this|that|your|his|her|their)\b)\w+){0,3}?\s+(?:offer|propose|bid|counter|counter-?offer)"
    r"|\bmy\s+(?:\w+\s+)?(?:offer|bid|price|counter|counter-?offer|proposal)|\bcounter-?offer)\b"
    rf"(?:\s+(?:is|would|will|be|stands))*{_TO}{_PRICE}{_NO_RANGE}",
    re.IGNORECASE,
)
_ACCEPT = re.compile(
    r"\bACCEPT(?:ED)?\b|(?i:\b(?:I|we)(?:'ll)?(?:\s+(?:will|do|hereby|am|happy|to|gladly|'m))*\s+(?:accept|agree)\b)"
    r"|(?i:\b(?:it's|it is|we have|you have) a deal\b)"
)
_SPEAKS_OF_ACCEPTING = re.compile(r"\baccept", re.IGNORECASE)
_END = re.compile(r"[.!?\n]")
_PAUSE = re.compile(r"[.!?;:,\n]|\b(?:but|so)\b", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:not|never|cannot|nor|neither|refuse\w*|unable|instead of|rather than)\b|n't\b", re.IGNORECASE
)
_SUPPOSED = re.compile(
    r"\b(?:if|unless|whether|before|until)\b|\b(?:would|could|might|may|can)(?:\s\w+)?\s*\Z", re.IGNORECASE
)
_CONDITION = re.compile(r"\b(?:if|unless|provided|only|but|when)\b", re.IGNORECASE)
_NEAR = 120
"""Characters on either side of an acceptance in which its negations and conditions are looked for."""

_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_END_OF_THOUGHT = re.compile(r"\A.*</(?:think|thinking|reasoning)>", re.IGNORECASE | re.DOTALL)
_THIN_SPACE = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3})")
_MARKUP = str.maketrans({**dict.fromkeys("*_`~#|\\"), "’": "'", "‘": "'", "“": '"', "”": '"', "−": "-"})
_AROUND = " \t\"'()[]{}<>•-–—.!;,"
_ENTRY = re.compile(r"\A\d{1,2}[.)]\s+")
_OR = re.compile(r"\W*or\b", re.IGNORECASE)


def read_answer(
    text: str, standing: float | None = None, cut: bool = False, shown: Collection[float] = ()
) -> Answer | None:
    """What ``text`` says, by the rules above; None if it is no answer.

    Args:
        text: as the model wrote it.
        standing: the offer that could be accepted.
        cut: the text may be incomplete.
        shown: prices that the question named, which a text may just repeat.
    """
    cleaned = _clean(text, cut)
    alone = _alone(cleaned)
    if alone is not None:
        return alone
    if _accepts(cleaned, standing):
        return Answer(accept=True)
    for found in (*_OFFER.finditer(cleaned), *_MY_OFFER.finditer(cleaned)):
        if found.re is _OFFER or not _denied(cleaned, found.start("price")):
            return Answer(False, _value(found["price"]))
    if _SPEAKS_OF_ACCEPTING.search(cleaned):
        return None
    known = [*shown, *([] if standing is None else [standing])]
    own = {
        price for price, marked, written in _prices(cleaned) if marked and not any(_is(written, one) for one in known)
    }
    return Answer(False, own.pop()) if len(own) == 1 else None


def _clean(text: str, cut: bool) -> str:
    """Without reasoning and markup, and without a number at the end that may lack digits."""
    text = _THIN_SPACE.sub("", text[:LONGEST])
    text = unicodedata.normalize("NFKC", text)
    text = _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text)).translate(_MARKUP).strip()
    return text.rstrip("0123456789.,") if cut else text


def _alone(text: str) -> Answer | None:
    """Rule 1; what goes on with "or" repeats the forms of an answer, and is none."""
    lines = [line for line in (line.strip(_AROUND) for line in text.splitlines()) if line]
    for line, following in itertools.pairwise([*lines, ""]):
        found = _ALONE.fullmatch(_ENTRY.sub("", line).strip(_AROUND))
        if found and not _OR.match(following):
            return Answer(True) if found["accept"] else Answer(False, _value(found["price"]))
    found = _JUST_A_PRICE.fullmatch(text.strip(_AROUND))
    return Answer(False, _value(found["price"])) if found else None


def _accepts(text: str, standing: float | None) -> bool:
    """Rule 2."""
    for found in _ACCEPT.finditer(text):
        if not _denied(text, found.start()) and not _conditional(text, found.start(), found.end()):
            return all(standing is not None and _is(written, standing) for _, _, written in _prices(text))
    return False


def _denied(text: str, at: int) -> bool:
    """Whether the clause that leads to ``at`` says no."""
    return bool(_DENIED.search(_PAUSE.split(text[max(0, at - _NEAR) : at])[-1]))


def _conditional(text: str, start: int, end: int) -> bool:
    """Whether the sentence around a word makes it a supposition or a choice."""
    before, after = _END.split(text[max(0, start - _NEAR) : start])[-1], _END.split(text[end : end + _NEAR])[0]
    return bool(_SUPPOSED.search(before) or _CONDITION.search(after) or _OR.match(text, end))


def _prices(text: str) -> Iterator[tuple[float, bool, str]]:
    """Each price in ``text``: its value, whether it is marked as money, and how it is written."""
    for found in _JUST_A_PRICE.finditer(text):
        yield _value(found["price"]), bool(found["mark"] or found["unit"]), found["price"]


def _is(written: str, price: float) -> bool:
    """Whether ``written`` is ``price``, to as many decimals as it has."""
    decimals = len(_spelled(written).partition(".")[2])
    return abs(_value(written) - price) < 10.0**-decimals


def _value(written: str) -> float:
    return float(_spelled(written))


def _spelled(written: str) -> str:
    """A number in one of the forms of `_DIGITS`, as Python spells it."""
    if re.search(r",\d{1,2}\Z", written):  # a decimal comma
        written = written.replace(".", "").replace(",", ".")
    return written.replace(",", "").replace(" ", "")
