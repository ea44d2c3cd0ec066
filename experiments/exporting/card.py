"""``README.md`` of a data set, as the Hugging Face Hub and ``datasets.load_dataset`` read it."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

TITLE = "Price bargaining"
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
         (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip
"""The Hub's ``size_categories``, each with the first number of rows that is too large for it."""


def card(
    text: str,
    usage: str,
    tables: Mapping[str, pa.Schema],
    rows: Mapping[str, Mapping[str, int]],
    digests: Mapping[str, str],
) -> str:
    """The card: front matter that names configurations and splits, then what they hold.

    ``datasets`` keeps what it once loaded under a key of the folder's last name and this front matter, not of the files:
    without their digest it would show the rows of another export for those of a folder of the same name, or written anew.

    Args:
        text: what the data are.
        usage: Python that loads the data.
        tables: the columns of each configuration, the default one first; its files lie in the folder of its name.
        rows: of each configuration, by split; a split without rows has no files and is not named.
        digests: of the contents of each configuration's files.
    """
    most = max(sum(counts.values()) for counts in rows.values())
    size = next((name for limit, name in SIZES if most < limit), "1B<n<10B")
    lines = ["---", f"pretty_name: {TITLE}", "tags:", "- negotiation", "- reinforcement-learning", "size_categories:",
             f"- {size}", "configs:"]  # fmt: skip
    for k, name in enumerate(tables):
        lines += [f"- config_name: {name}", *(["  default: true"] if k == 0 else []),
                  f"  description: content {digests[name]}", "  data_files:"]  # fmt: skip
        for split in rows[name]:
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*.parquet"]
    lines += ["---", "", f"# {TITLE}", "", text, "", "```python", usage, "```"]
    for name, schema in tables.items():
        counts = ", ".join(f"{split} {n:,}" for split, n in rows[name].items())
        lines += ["", f"## {name}", "", f"Rows: {counts}.", "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{f.name}` | {_kind(f.type)} | {_meaning(f)} |" for f in schema]
    return "\n".join(lines) + "\n"


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.value_type}[{kind.list_size}]"
    return f"{kind.value_type}[]" if pa.types.is_list(kind) else str(kind)


def _meaning(field: pa.Field) -> str:
    return field.metadata[b"description"].decode().replace("|", "\\|")
