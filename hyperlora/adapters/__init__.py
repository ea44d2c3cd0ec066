"""Families of adapters: where they are kept, found and served from."""
