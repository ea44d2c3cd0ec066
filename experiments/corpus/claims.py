"""What a file says of each decision, in one form whatever the file: `CLAIMS`, and what makes a row unreadable: `FAULTS`.

Labels, histories and names are claims: `experiments.corpus.checks` compares them with the moves. A row that cannot be
read but says whose it is stays in its place with a fault, so that its episode is known to have a hole.
"""

from __future__ import annotations

import pyarrow as pa

FAULTS = {
    "not_json": "the line is cut short or not JSON",
    "missing_field": "a field is missing, or null where it must not be",
    "wrong_type": "a field has the wrong type, or a value that it cannot have",
    "not_finite": "a number is not finite",
}
NO_FAULT = 0
FAULT_CODE = {kind: code for code, kind in enumerate(FAULTS, start=1)}

TEXT = pa.dictionary(pa.int32(), pa.string())
CLAIMS = pa.schema(
    [
        ("place", pa.int64()),  # of the row in the whole input, see `experiments.corpus.reading.Reader.locate`
        ("fault", pa.int8()),  # of `FAULT_CODE`; the other columns but the id then mean nothing
        ("trajectory_id", TEXT),  # null only with a fault
        ("turn", pa.int64()),
        ("role", pa.int8()),  # a `bargain_env.Seat`
        ("max_turns", pa.int64()),
        ("reservation", pa.float64()),
        ("price_low", pa.float64()),
        ("price_high", pa.float64()),
        ("last_offer", pa.float64()),  # NaN where none; so are the other numbers that may be absent
        ("accept", pa.bool_()),
        ("price", pa.float64()),
        ("success", pa.bool_()),
        ("rho", pa.float64()),
        ("turns", pa.float64()),  # moves of the whole episode
        ("strategy", TEXT),
        ("opponent_strategy", TEXT),
        ("zopa_low", pa.float64()),
        ("zopa_high", pa.float64()),
        ("seed", pa.float64()),
        ("history_roles", pa.list_(pa.int8())),  # the last entries, `records.HISTORY_LENGTH` at most
        ("history_prices", pa.list_(pa.float64())),
    ]
)
PLAIN = pa.schema([f.with_type(pa.string()) if f.type == TEXT else f for f in CLAIMS])
"""`CLAIMS` for files: texts are spelled out."""
