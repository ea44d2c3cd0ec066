"""What goes wrong with an adapter that is neither its file's fault nor its user's."""

from __future__ import annotations


class NoRoom(RuntimeError):
    """Nothing can make room for an adapter: the others are leased or pinned, or it is larger than the limit."""


class ServerError(RuntimeError):
    """The server that holds the model refused to load or unload an adapter."""
