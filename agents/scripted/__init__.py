"""The scripted zoo: bargaining strategies composed of offering tactics and acceptance conditions.

`anchors` holds what all share (a coordinate in which both seats run the same formula), `components` how they are
composed, `families` and `catalogue` the list. Importing this package registers all of them.
"""

from .anchors import Decision, Frame, Scripted
from .catalogue import CATALOGUE
from .components import Acceptance, Composed, Offering, Proposal

__all__ = ["CATALOGUE", "Acceptance", "Composed", "Decision", "Frame", "Offering", "Proposal", "Scripted"]
