"""Decisions on disk: schemas, the seed's log, and reading, checking and repairing what others wrote."""
