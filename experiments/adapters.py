"""Adapters in a store: what is there, whether it is whole, what changed, what stands for an agent.

    python -m experiments.adapters list --store runs/store
    python -m experiments.adapters show synthesizer@latest
    python -m experiments.adapters verify
    python -m experiments.adapters diff synthesizer@v20260101-0000 synthesizer
    python -m experiments.adapters alias synthesizer stable v20260101-0000
    python -m experiments.adapters prune --keep 3 --dry-run
    python -m experiments.adapters resolve synthesizer@stable

The store is --store or MODEL_STORE_ROOT; `experiments.train_qlora --publish` fills it. AGENT is what AGENT_MODEL_MAP.json
says, AGENT@NAME an alias or a version. ``verify`` exits with 1 if anything is not as it was published.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro
from rich.markup import escape
from rich.table import Table

from experiments import cli
from hyperlora.adapters.diff import Difference, diff
from hyperlora.adapters.manifest import Version
from hyperlora.adapters.prune import prune
from hyperlora.adapters.store import AdapterStore
from hyperlora.adapters.verify import Problem, verify, verify_pointers

SHOWN = 20
"""Tensors of a comparison that are printed; --json has all."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every subcommand."""

    store: Path | None = None
    """Folder of the store; MODEL_STORE_ROOT if not given."""
    quiet: bool = False
    """Print nothing but errors."""
    json: bool = False
    """Print the result as JSON, and nothing else."""


@dataclass(frozen=True)
class Listing(Common):
    """List versions, and what points to them."""

    agent: Annotated[str | None, tyro.conf.Positional] = None
    """Only this agent's."""


@dataclass(frozen=True)
class Show(Common):
    """Show what the manifest of a version says."""

    reference: Annotated[str, tyro.conf.Positional]
    """AGENT, AGENT@ALIAS or AGENT@VERSION."""


@dataclass(frozen=True)
class Verify(Common):
    """Read every byte and name what is not as it was published; exit code 1 if anything is not."""

    references: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """AGENT@VERSION or AGENT@ALIAS; the whole store if none is given."""


@dataclass(frozen=True)
class Diff(Common):
    """Compare two versions: manifests, files, and weights tensor by tensor."""

    a: Annotated[str, tyro.conf.Positional]
    """The one, as for show."""
    b: Annotated[str, tyro.conf.Positional]
    """The other."""


@dataclass(frozen=True)
class Prune(Common):
    """Remove old versions that nothing points to, and what killed processes left."""

    keep: int
    """How many of an agent's versions stay, those published last."""
    agent: str | None = None
    """Only this agent's."""
    dry_run: bool = False
    """Say what would go; remove nothing."""


@dataclass(frozen=True)
class Alias(Common):
    """Point an alias to a version; latest moves the agent's entry in AGENT_MODEL_MAP.json with it."""

    agent: Annotated[str, tyro.conf.Positional]
    """Whose alias."""
    alias: Annotated[str, tyro.conf.Positional]
    """The alias."""
    version: Annotated[str, tyro.conf.Positional]
    """A version, or another alias, whose version is meant."""


@dataclass(frozen=True)
class Resolve(Common):
    """Print the path of the version that a reference means."""

    reference: Annotated[str, tyro.conf.Positional]
    """AGENT, AGENT@ALIAS or AGENT@VERSION."""


@dataclass(frozen=True)
class Settings:
    """Adapters in a store: what is there, whether it is whole, what changed, what stands for an agent."""

    command: Annotated[
        Annotated[Listing, tyro.conf.subcommand("list")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[Diff, tyro.conf.subcommand("diff")]
        | Annotated[Prune, tyro.conf.subcommand("prune")]
        | Annotated[Alias, tyro.conf.subcommand("alias")]
        | Annotated[Resolve, tyro.conf.subcommand("resolve")],
        tyro.conf.arg(name=""),
        tyro.conf.OmitSubcommandPrefixes,
        tyro.conf.OmitArgPrefixes,
    ]


def run(settings: Settings) -> Any:
    """Do what was asked for; returns what --json prints.

    Raises:
        InputError: no store, no such agent or version, a name that cannot be one, or a damaged manifest or pointer.
        SystemExit: with 1, if `verify` found a problem.
    """
    asked = settings.command
    store, say = AdapterStore(asked.store), _Printer(asked.quiet or asked.json)
    match asked:
        case Listing():
            result: Any = _list(store, asked.agent, say)
        case Show():
            result = _show(store.resolve(asked.reference), say)
        case Verify():
            result = _verify(store, asked.references, say)
        case Diff():
            result = _diff(store.resolve(asked.a), store.resolve(asked.b), say)
        case Prune():
            result = _prune(store, asked, say)
        case Alias():
            found = store.alias(asked.agent, asked.alias, asked.version)
            say.line(f"{asked.agent}@{asked.alias} → {found.name}")
            result = {"agent": asked.agent, "alias": asked.alias, "version": found.name}
        case Resolve():
            found = store.resolve(asked.reference)
            say.line(str(found.path.resolve()))
            result = {"path": str(found.path.resolve()), "agent": found.agent, "version": found.name}
    if asked.json:
        print(json.dumps(result))
    if isinstance(asked, Verify) and result["problems"]:
        sys.exit(1)
    return result


class _Printer:
    """Text for people, as it is: neither markup nor wrapping."""

    def __init__(self, quiet: bool) -> None:
        self.console = cli.console(quiet)

    def line(self, text: str) -> None:
        self.console.out(text, highlight=False)

    def table(self, heads: tuple[str, ...], rows: list[list[str]], right: tuple[str, ...] = ()) -> None:
        table = Table(box=None, pad_edge=False)
        for head in heads:
            table.add_column(head, justify="right" if head in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        self.console.print(table)


def _list(store: AdapterStore, agent: str | None, say: _Printer) -> list[dict[str, Any]]:
    found, rows = [], []
    for name in store.agents() if agent is None else [agent]:
        entry, aliases, whole = store.agent_map().get(name), store.aliases(name), store.versions(name)
        for version in whole:
            pointers = sorted(alias for alias, to in aliases.items() if to == version.name)
            mapped = entry is not None and entry["version"] == version.name
            said = version.manifest
            found.append(
                {"agent": name, "version": version.name, "adapter_name": said["adapter_name"], "created": said["created"],
                 "kind": said["kind"], "base": said["base"].get("name"), "bytes": version.size, "aliases": pointers,
                 "in_map": mapped, "path": str(version.path.resolve())}
            )  # fmt: skip
            marks = ", ".join([*pointers, *(["map"] if mapped else [])])
            rows.append([name, version.name, said["adapter_name"], said["kind"], str(said["base"].get("name")),
                         f"{version.size / 1e6:,.2f} MB", marks])  # fmt: skip
        for damaged in sorted(set(store.version_names(name)) - {version.name for version in whole}):
            rows.append([name, damaged, "damaged: see verify", "", "", "", ""])
    say.table(("agent", "version", "adapter", "kind", "base", "size", "pointed to by"), rows, right=("size",))
    say.line(f"{len(found)} versions in {store.root}")
    return found


def _show(version: Version, say: _Printer) -> dict[str, Any]:
    said = dict(version.manifest)
    for key in ("agent", "version", "adapter_name", "kind", "created"):
        say.line(f"{key.replace('_', ' '):<15} {said[key]}")
    say.line(f"{'path':<15} {version.path.resolve()}")
    for section in ("base", "data", "hyperparameters", "code", "packages"):
        say.line(section)
        for key, value in said[section].items():
            say.line(f"  {key:<28} {value if isinstance(value, str) else json.dumps(value)}")
    say.line("files")
    for name, file in said["files"].items():
        say.line(f"  {name:<28} {file['bytes']:>12,} bytes  {file['sha256'][:16]}…")
    return said


def _verify(store: AdapterStore, references: tuple[str, ...], say: _Printer) -> dict[str, Any]:
    if references:
        chosen = [_named(store, reference) for reference in references]
        problems: list[Problem] = []
    else:
        chosen = [(agent, name) for agent in store.agents() for name in store.version_names(agent)]
        problems = verify_pointers(store)
    for agent, name in chosen:
        problems += verify(store, agent, name)
    if problems:
        for problem in problems:
            say.line(str(problem))
        print(f"{len(problems)} problem{'s' * (len(problems) > 1)} in {store.root}", file=sys.stderr)
    else:
        say.line(f"{len(chosen)} version{'s' * (len(chosen) != 1)} in {store.root}: all as they were published")
    return {"versions": len(chosen), "problems": [asdict(problem) for problem in problems]}


def _named(store: AdapterStore, reference: str) -> tuple[str, str]:
    """Agent and version of a reference, without reading a manifest that may be damaged."""
    agent, _, name = reference.partition("@")
    aliases = store.aliases(agent)
    name = aliases.get(name, name)
    if name in store.version_names(agent):
        return agent, name
    found = store.resolve(reference)
    return agent, found.name


def _diff(a: Version, b: Version, say: _Printer) -> dict[str, Any]:
    found: Difference = diff(a, b)
    say.line(f"{a} → {b}")
    for path, (before, after) in found.said.items():
        say.line(f"  {path}: {json.dumps(before)} → {json.dumps(after)}")
    for name, what in found.files.items():
        say.line(f"  {what} {name}")
    if found.tensors:
        rows = [["" if t.relative is None else f"{t.relative:.3g}", t.name, t.file] for t in found.tensors[:SHOWN]]
        say.table(("‖b−a‖/‖a‖", "tensor", "file"), rows, right=("‖b−a‖/‖a‖",))
        if len(found.tensors) > SHOWN:
            say.line(f"… and {len(found.tensors) - SHOWN} more; --json has all")
    for line in found.unlike:
        say.line(f"  {line}")
    if not (found.said or found.files):
        say.line("  nothing differs")
    return {"a": str(a), "b": str(b), **found.as_dict()}


def _prune(store: AdapterStore, asked: Prune, say: _Printer) -> dict[str, Any]:
    gone = prune(store, asked.keep, asked.agent, asked.dry_run)
    verb = "would remove" if asked.dry_run else "removed"
    for version in gone.versions:
        say.line(f"{verb} {version} ({version.size / 1e6:,.2f} MB)")
    for path in gone.leftovers:
        say.line(f"{verb} {path}, left by a process that was stopped")
    say.line(
        f"{verb} {len(gone.versions)} versions and {len(gone.leftovers)} leftovers, "
        f"{sum(version.size for version in gone.versions) / 1e6:,.2f} MB"
    )
    return {
        "dry_run": asked.dry_run,
        "versions": [str(version) for version in gone.versions],
        "leftovers": [str(path) for path in gone.leftovers],
    }


if __name__ == "__main__":
    cli.main(Settings, run)
