"""Exact decoding, against plain enumeration and against itself in other batches."""
