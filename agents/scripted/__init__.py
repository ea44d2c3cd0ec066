"""The scripted zoo: 23 bargaining strategies, each written once for whole batches.

`anchors` holds what they share (a coordinate in which both seats run the same formula), `catalogue` the list. Importing
this package registers all of them.
"""

from .anchors import Decision, Frame, Scripted
from .catalogue import CATALOGUE

__all__ = ["CATALOGUE", "Decision", "Frame", "Scripted"]
