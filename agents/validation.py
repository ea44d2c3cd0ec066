"""The validation opponents: what is tuned or calibrated on them is measured on others.

A third set beside those that train and those held out, in the proportions of the evaluable ones that train: as many members
of each family, with parameters of their own. A family without parameters (``tit_for_tat``, ``split_difference``) has no
further member, so none is here. Parameters were drawn within the trained ranges by Latin hypercube (M. D. McKay, R. J.
Beckman and W. J. Conover, Technometrics 21 (1979), pp. 239-245): one member from each n-th of a range, with seed 8128,
before anything was played, and rounded to three digits. They are written down, so that no plugin and no change of the
draw moves the set.
"""

VALIDATION = "validation"
"""The split of these opponents, and the group that names them all."""

OPPONENTS = (
    "boulware(exponent=0.243)",
    "boulware(exponent=0.457)",
    "boulware(exponent=0.895)",
    "boulware(exponent=1.23)",
    "boulware(exponent=2.91)",
    "noisy_boulware(exponent=0.658)",
    "noisy_boulware(exponent=1.13)",
    "noisy_boulware(exponent=3.46)",
    "hardliner(cave_in_margin=8.33)",
    "micro(step=16.4)",
    "micro(step=28.1)",
    "micro(step=33.3)",
    "charging_boul(floor=0.513, exponent=0.22)",
    "charging_boul(floor=0.56, exponent=0.436)",
    "charging_boul(floor=0.591, exponent=0.783)",
    "fair(opening=0.431)",
    "fair(opening=0.746)",
    "fair(opening=0.825)",
    "naive_concession(margin=22.0, jitter=3.29)",
    "naive_boulware(exponent=3.29)",
)
"""Names that play them again, in every tournament; none may train."""
