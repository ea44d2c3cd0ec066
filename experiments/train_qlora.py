r"""Fine-tune a LoRA on texts, in 4 bits where there is a GPU, and publish it to a store.

    python -m experiments.train_qlora --agent synthesizer --adapter-name synth_v1 --model_name_or_path janus-nano \
        --train-files data/rows.jsonl --output_dir runs/adapters/synth_v1 --dry-run
    python -m experiments.train_qlora … --publish --store runs/store

Rows hold ``text``, or ``prompt`` and ``response`` (or ``completion``), or ``messages``; the loss is on the response alone
where there is one. The result is a PEFT adapter with its tokenizer and ``training_summary.json``. ``--dry-run`` checks
everything and writes nothing but an empty --output_dir.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file: imports start at the repository, and no module here hides one of Python's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from bargain_env.errors import InputError
from experiments import cli
from experiments.qlora import output
from experiments.qlora.outlook import Outlook, longest_row, outlook
from experiments.qlora.rows import Rows, read_dataset, read_files
from experiments.qlora.settings import Machine, Settings, check, fields, hyperparameters, machine
from experiments.qlora.tokens import Lengths, Template, TokenRows
from experiments.qlora.training import fit, load_with_lora, padding
from hyperlora.adapters.manifest import packages
from hyperlora.adapters.store import AdapterStore
from hyperlora.base import load_tokenizer_of

SHOWN = 5
"""Bad rows that are printed when they are skipped; the summary names all."""


def run(settings: Settings) -> dict[str, Any]:
    """Do what the settings say; returns the summary, of a dry run what it found.

    Raises:
        InputError: a setting, a row, the base or the store cannot be used; nothing is written.
        FloatingPointError: a loss is not finite.
    """
    check(settings)
    found, console = machine(settings), cli.console(settings.quiet or settings.json)
    store, version = _store(settings)
    output.refuse_occupied(settings.output_dir, settings.resume)
    rows = _rows(settings, console)
    longest = longest_row(settings)
    tokenizer = load_tokenizer_of(settings.model_name_or_path)
    padding(tokenizer)
    data = TokenRows(rows.good, tokenizer, Template.of(settings.prompt_template), longest)
    plan = outlook(settings, found, data.lengths(), longest)
    _announce(console, settings, found, rows, data.lengths(), plan, longest)
    if settings.dry_run:
        return _dry_run(settings, console, found, rows, data.lengths(), plan, version)
    summary = _train(settings, found, rows, data, longest, console)
    if store is not None:
        summary = {**summary, "published": _publish(settings, store, console)}
    if settings.json:
        print(json.dumps({k: v for k, v in summary.items() if k != "losses"}))
    return summary


def _store(settings: Settings) -> tuple[AdapterStore | None, str | None]:
    """The store and the version that would be published now, before anything long begins."""
    if not settings.publish:
        return None, None
    store = AdapterStore(settings.store)
    store.check_writable()
    return store, store.planned_version(settings.agent, settings.adapter_version)


def _rows(settings: Settings, console: Console) -> Rows:
    if settings.dataset_name is not None:
        rows = read_dataset(settings.dataset_name, settings.dataset_split, fields(settings))
    else:
        rows = read_files(settings.train_files, fields(settings))
    if not settings.skip_bad_rows:
        rows.refuse_bad()
    rows.refuse_empty()
    for bad in rows.bad[:SHOWN]:
        console.out(f"left out {bad}", highlight=False)
    if len(rows.bad) > SHOWN:
        console.out(f"left out {len(rows.bad) - SHOWN:,} more; training_summary.json names all")
    rows.draw(settings.max_train_samples, settings.seed)
    return rows


def _announce(
    console: Console, settings: Settings, found: Machine, rows: Rows, lengths: Lengths, plan: Outlook, longest: int
) -> None:
    def say(text: str) -> None:
        console.out(text, highlight=False)

    say(f"base {settings.model_name_or_path} on {found.device}, {found.precision}, {found.why}")
    say(
        f"{lengths.rows:,} rows ({len(rows.bad):,} bad ones left out), {lengths.tokens:,} tokens, {lengths.targets:,} with "
        f"a loss; median {lengths.median}, longest {lengths.longest}, limit {longest}"
    )
    if lengths.prompts_cut or lengths.responses_cut:
        say(
            f"cut to {longest} tokens: {lengths.prompts_cut:,} prompts at their front, {lengths.responses_cut:,} answers or "
            "texts at their end; raise --max-seq-length to keep them whole"
        )
    if lengths.unknown:
        say(
            f"the tokenizer does not know some of the text of {lengths.unknown:,} rows, and reads it as its unknown token; "
            "see that they are meant for this base"
        )
    say(
        f"{plan.adapter_parameters:,} parameters train on {plan.base_parameters:,} frozen ones, {plan.steps:,} steps of "
        f"{settings.train_batch_size} × {settings.gradient_accumulation} rows"
    )
    say(
        f"memory: base {_mib(plan.base_bytes)}, adapter and optimizer {_mib(plan.adapter_bytes)}, logits "
        f"{_mib(plan.logit_bytes)}, activations on top; {_mib(plan.free_bytes)} free"
    )
    if plan.needed_bytes > plan.free_bytes:
        raise InputError(
            f"{_mib(plan.needed_bytes)} are needed and {_mib(plan.free_bytes)} free; try --four-bit on, a smaller "
            "--train-batch-size, a shorter --max-seq-length or a smaller base"
        )


def _mib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _dry_run(
    settings: Settings,
    console: Console,
    found: Machine,
    rows: Rows,
    lengths: Lengths,
    plan: Outlook,
    version: str | None,
) -> dict[str, Any]:
    out = cli.output_folder(settings.output_dir)
    published = None if version is None else f"{settings.agent}@{version}"
    console.out(f"versions: {', '.join(f'{name} {number}' for name, number in packages().items())}", highlight=False)
    console.out(f"would publish {published}" if published else "would publish nothing: --publish is not given")
    console.out(f"all is well; nothing was trained, and {out} was left empty; leave out --dry-run to train")
    result = {
        "dry_run": True,
        "machine": {"device": found.device, "precision": found.precision, "four_bit": found.four_bit, "why": found.why},
        "packages": packages(),
        "data": _data(rows, lengths),
        "plan": plan.as_dict(),
        "would_publish": published,
    }
    if settings.json:
        print(json.dumps(result))
    return result


def _data(rows: Rows, lengths: Lengths) -> dict[str, Any]:
    bad = [{"file": bad.file, "line": bad.line, "what": bad.what} for bad in rows.bad]
    return {**rows.source, "sha256": rows.digest(), **asdict(lengths), "bad_rows": len(bad), "bad": bad}


def _train(
    settings: Settings, found: Machine, rows: Rows, data: TokenRows, longest: int, console: Console
) -> dict[str, Any]:
    out, started, clock = settings.output_dir, datetime.now(UTC), time.monotonic()
    chosen = hyperparameters(settings, found, longest)
    identity = {"agent": settings.agent, "adapter_name": settings.adapter_name, "data_sha256": rows.digest(), **chosen}
    start = output.checkpoint_of(out, identity) if settings.resume else None
    model, tokenizer = load_with_lora(settings, found)
    checkpoints = output.begin(cli.output_folder(out), identity)
    if start is not None:
        console.out(f"continuing from {start}", highlight=False)
    losses = fit(model, tokenizer, data, settings, found, checkpoints, start, console)
    base, last = model.get_base_model(), losses[-max(1, len(losses) // 10) :]
    summary = {
        "schema_version": output.SCHEMA_VERSION,
        "agent": settings.agent,
        "adapter_name": settings.adapter_name,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "resumed_from": None if start is None else start.name,
        "base": {"name": settings.model_name_or_path, "digest": base.base_digest, "weights_digest": base.weights_digest,
                 "precision": base.base_precision, "vocab_rows": int(base.get_input_embeddings().weight.shape[0])},
        "data": _data(rows, data.lengths()),
        "hyperparameters": chosen,
        "steps": len(losses),
        "loss_first": losses[0],
        "loss_last_tenth": sum(last) / len(last),
        "losses": losses,
        "device": found.device,
        "packages": packages(),
    }  # fmt: skip
    output.write(model, tokenizer, out, summary)
    console.out(f"loss {losses[0]:.4f} → {summary['loss_last_tenth']:.4f}; wrote {out}", highlight=False)
    console.out(f'next: PeftModel.from_pretrained(base, "{out}")', highlight=False)
    return summary


def _publish(settings: Settings, store: AdapterStore, console: Console) -> dict[str, Any]:
    try:
        found = store.publish(
            settings.output_dir, settings.agent, settings.adapter_name, version=settings.adapter_version,
            skip=(output.CHECKPOINTS,),
        )  # fmt: skip
    except (InputError, OSError) as error:
        raise InputError(
            f"not published: {error}; the adapter is in {settings.output_dir}, the same command with --resume publishes it"
        ) from error
    console.out(f"published {found} to {found.path}; AGENT_MODEL_MAP.json points to it", highlight=False)
    return {"reference": str(found), "path": str(found.path.resolve())}


if __name__ == "__main__":
    cli.main(Settings, run)
