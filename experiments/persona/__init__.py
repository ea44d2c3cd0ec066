"""Personas: counterparts with a style, adapters that know them, and what that knowledge is worth."""
