"""Commands: each module is one, run as ``python -m experiments.NAME`` or ``python experiments/NAME.py``."""
