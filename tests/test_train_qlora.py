"""Fine-tuning on texts: rows as they come, loss where it belongs, dry runs that write nothing, adapters that PEFT loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from exported import ready

from bargain_env.errors import InputError
from experiments import cli, export, train_qlora
from experiments.qlora import output
from experiments.qlora.rows import Fields, read_files
from experiments.qlora.settings import Settings
from experiments.qlora.tokens import IGNORED, Padded, Template, TokenRows
from hyperlora.adapters.store import AdapterStore
from hyperlora.adapters.verify import verify
from hyperlora.base import load_base, load_tokenizer_of

peft = pytest.importorskip("peft")
WEIGHTS = "adapter_model.safetensors"
ROWS = [{"prompt": f"{k}+{k}=", "response": str(2 * k)} for k in range(12)]
FAST = {"adapter_r": 4, "adapter_alpha": 8, "train_batch_size": 2, "gradient_accumulation": 2, "learning_rate": 1e-2}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path):
    return lines(tmp_path / "rows.jsonl", ROWS)


def settings(tmp_path, data, out="out", **more):
    given = {"train_files": (str(data),), "quiet": True, **FAST, **more}
    return Settings(agent="synthesizer", adapter_name="synth_v1", output_dir=tmp_path / out, **given)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer_of("janus-nano")


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

GOOD = {
    "text": ({"text": "a b"}, ("a b", None, None)),
    "prompt and response": ({"prompt": "p", "response": "r"}, (None, "p", "r")),
    "TRL": ({"prompt": "p", "completion": "r", "rho": 0.5, "turn": 3}, (None, "p", "r")),
    "an empty prompt": ({"prompt": "", "response": "r"}, (None, "", "r")),
    "a table's nulls": ({"text": None, "prompt": "p", "response": None, "completion": "r"}, (None, "p", "r")),
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_rows_of_every_kind_in_every_file(kind, suffix, tmp_path):
    row, expected = GOOD[kind]
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row if suffix == ".jsonl" else [row]))
    found = read_files([str(tmp_path / f"*{suffix}")], Fields())
    assert [(r.text, r.prompt, r.response) for r in found.good] == [expected]
    assert found.bad == []


BAD = {
    '{"text": 3}': "text is a int",
    '{"text": " "}': "text is empty",
    "[1]": "is a list, not an object",
    '{"prompt": "p"}': "has no response or completion",
    '{"response": "r"}': "has no prompt",
    '{"prompt": "p", "response": ""}': "response is empty",
    "{}": "has neither",
    "{": "is not JSON",
    '{"text": "\\ud800"}': "lone surrogate",
    '{"messages": []}': "no list of messages",
    '{"messages": [{"role": "user", "content": "x"}]}': "ends with user",
    '{"messages": [{"role": "king", "content": "x"}]}': "role 'king'",
}


def test_bad_rows_are_all_counted_and_named_by_file_and_line(tmp_path, data, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text('\ufeff{"text": "fine"}\n\n' + "\n".join(BAD) + "\n", encoding="utf-8")
    with path.open("ab") as file:
        file.write(b'{"text": "\xff"}\n')
    found = read_files([str(path)], Fields())
    assert len(found.good) == 1
    assert [bad.line for bad in found.bad] == list(range(3, 4 + len(BAD)))
    for bad, words in zip(found.bad, [*BAD.values(), "is not UTF-8"], strict=True):
        assert words in bad.what
        assert str(bad).startswith(f"{path}:{bad.line}: ")
    with pytest.raises(
        InputError, match=rf"^{len(BAD) + 1} bad rows of {len(BAD) + 2}: .*bad.jsonl:3: .*--skip-bad-rows"
    ):
        train_qlora.run(settings(tmp_path, path, dry_run=True))
    result = train_qlora.run(settings(tmp_path, path, dry_run=True, skip_bad_rows=True))
    assert (result["data"]["rows"], result["data"]["bad_rows"]) == (1, len(BAD) + 1)


def test_fewer_samples_are_among_more(data):
    def drawn(wanted):
        found = read_files([str(data)], Fields())
        found.draw(wanted, seed=3)
        return [row.prompt for row in found.good]

    assert set(drawn(3)) < set(drawn(7)) < set(drawn(None))
    assert drawn(7) == sorted(drawn(7), key=lambda p: int(p.partition("+")[0]))


# ── tokens ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def learned(item, tokenizer):
    return tokenizer.decode([i for i, label in zip(item["input_ids"], item["labels"], strict=True) if label != IGNORED])


def test_the_loss_is_on_the_response_alone_or_on_a_whole_text(tmp_path, tokenizer):
    path = lines(tmp_path / "two.jsonl", [{"prompt": "ask", "response": "say"}, {"text": "all"}])
    rows = read_files([str(path)], Fields()).good
    items = TokenRows(rows, tokenizer, Template.of("Q: {prompt}\\nA: {response}."), 64)
    assert [learned(item, tokenizer) for item in items] == ["say.<eos>", "all<eos>"]
    assert tokenizer.decode(items[0]["input_ids"]) == "Q: ask\nA: say.<eos>"
    batch = Padded(tokenizer.pad_token_id)([items[0], items[1]])
    assert batch["labels"].shape == batch["input_ids"].shape == batch["attention_mask"].shape
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()


def test_a_prompt_is_cut_before_its_response(tmp_path, tokenizer):
    path = lines(
        tmp_path / "two.jsonl", [{"prompt": "0123456789", "response": "ab"}, {"prompt": "x", "response": "abcdefgh"}]
    )
    items = TokenRows(read_files([str(path)], Fields()).good, tokenizer, Template.of("{prompt}{response}"), 6)
    assert tokenizer.decode(items[0]["input_ids"]) == "789ab<eos>"
    assert tokenizer.decode(items[1]["input_ids"]) == "xabcde"
    assert learned(items[1], tokenizer) == "abcde"
    found = items.lengths()
    assert (found.longest, found.prompts_cut, found.responses_cut, found.unknown) == (13, 1, 1, 0)


def test_what_the_tokenizer_cannot_read_or_write_is_named_and_counted(tmp_path, tokenizer):
    good, bad = {"prompt": "ask", "response": "say"}, {"prompt": "price?", "response": "☃ 7"}
    rows = read_files([str(lines(tmp_path / "some.jsonl", [good, bad, bad]))], Fields()).good
    assert TokenRows(rows, tokenizer, Template.of("{prompt}{response}"), 64).lengths().unknown == 2
    kept = [rows[0], rows[2]]
    with pytest.raises(InputError, match=r"some\.jsonl:3: its response is no token"):
        TokenRows(kept, Mute(tokenizer, rows[2].response), Template.of("{prompt}{response}"), 64)


class Mute:
    """A tokenizer that makes nothing of one text."""

    def __init__(self, tokenizer, text):
        self._tokenizer, self._text = tokenizer, text

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, text, **options):
        return {"input_ids": []} if text == self._text else self._tokenizer(text, **options)


@pytest.mark.parametrize("text", ["{prompt}", "{response}", "{response}{prompt}", "{prompt}{prompt}{response}", ""])
def test_templates_that_cannot_be_used(text):
    with pytest.raises(InputError, match="--prompt-template"):
        Template.of(text)


def test_chats_need_a_template_and_are_learned_to_their_end(tmp_path, tokenizer):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    rows = read_files([str(lines(tmp_path / "chat.jsonl", [{"messages": chat}]))], Fields()).good
    with pytest.raises(InputError, match="chat template"):
        TokenRows(rows, tokenizer, Template.of("{prompt}{response}"), 64)
    own = load_tokenizer_of("janus-nano")
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
    own.chat_template = turns + "{% if add_generation_prompt %}[assistant]{% endif %}"
    [item] = list(TokenRows(rows, own, Template.of("{prompt}{response}"), 64))
    assert learned(item, own) == "yes\n"


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_as_it_is_given_on_a_command_line(tmp_path, data, capsys, monkeypatch):
    monkeypatch.setenv("MODEL_STORE_ROOT", str(tmp_path / "store"))
    out = tmp_path / "out"
    cli.main(
        Settings, train_qlora.run,
        ["--agent", "synthesizer", "--adapter-name", "synth_v1", "--model_name_or_path", "janus-nano", "--train-files",
         str(data), "--output_dir", str(out), "--dry-run", "--max-train-samples", "10", "--publish",
         "--adapter_version", "v7", "--device", "cpu"],
    )  # fmt: skip
    printed = capsys.readouterr().out
    for words in ("10 rows (0 bad", "not in 4 bits: there is no GPU", "6 steps of 1 × 8", "would publish synthesizer@v7",
                  "peft", "memory: base"):  # fmt: skip
        assert words in printed
    assert list(out.iterdir()) == []
    assert not (tmp_path / "store").exists()


WRONG = {
    "no data": ({"train_files": ()}, "either --train-files or --dataset-name"),
    "two sources": ({"dataset_name": "x"}, "either --train-files or --dataset-name"),
    "no such file": ({"train_files": ("nowhere.jsonl",)}, "no such file"),
    "agent": ({"agent": "../x"}, "agent"),
    "length": ({"max_seq_length": 100_000}, "512 positions"),
    "modules": ({"target_modules": ("nothing",)}, "This base has .*q_proj"),
    "rank": ({"adapter_r": 0}, "--adapter-r 0"),
    "rate": ({"learning_rate": float("nan")}, "--learning-rate"),
    "version alone": ({"adapter_version": "v1"}, "belong to --publish"),
    "no store": ({"publish": True}, "--store DIR"),
    "base": ({"model_name_or_path": "./nowhere"}, "cannot load base model"),
    "resume": ({"resume": True}, "holds no run"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_cannot_be_used_is_refused_before_anything_is_written(case, dry_run, tmp_path, data, monkeypatch):
    monkeypatch.delenv("MODEL_STORE_ROOT", raising=False)
    wrong, message = WRONG[case]
    given = {
        "agent": "synthesizer",
        "adapter_name": "a",
        "output_dir": tmp_path / "out",
        "train_files": (str(data),),
        **FAST,
    }
    with pytest.raises(InputError, match=message):
        train_qlora.run(Settings(**{**given, "quiet": True, "dry_run": dry_run, **wrong}))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path, data):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        train_qlora.run(settings(tmp_path, data))


def logits(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer(["3+3="], return_tensors="pt", return_token_type_ids=False)).logits


def test_training_publishing_and_loading(tmp_path, data):
    before = torch.random.get_rng_state()
    summary = train_qlora.run(settings(tmp_path, data, epochs=4, publish=True, store=tmp_path / "store", device="cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert summary["steps"] == len(summary["losses"]) == 12
    assert summary["loss_last_tenth"] < summary["loss_first"]
    store = AdapterStore(tmp_path / "store")
    found = store.resolve("synthesizer")
    assert verify(store, "synthesizer", found.name) == []
    assert found.manifest["training_summary"]["losses"] == summary["losses"]
    assert found.manifest["hyperparameters"]["adapter_r"] == 4
    assert found.manifest["data"]["sha256"] == summary["data"]["sha256"]
    assert not any(name.startswith("checkpoints") for name in found.manifest["files"])
    base, tokenizer = load_base("janus-nano")
    assert found.manifest["base"]["digest"] == base.base_digest
    plain = logits(base, tokenizer)
    served = peft.PeftModel.from_pretrained(base, str(found.path)).eval()
    assert (logits(served, tokenizer) - plain).abs().max() > 1e-3
    with served.disable_adapter():
        torch.testing.assert_close(logits(served, tokenizer), plain, atol=0, rtol=0)


def test_the_same_seed_gives_the_same_bytes_and_a_resumed_run_too(tmp_path, data):
    def trained(out, **more):
        train_qlora.run(
            settings(tmp_path, data, out, epochs=2, save_steps=2, adapter_dropout=0.1, device="cpu", **more)
        )
        return (tmp_path / out / WEIGHTS).read_bytes()

    whole = trained("whole")
    torch.rand(3)  # whatever has been drawn before must not matter
    assert trained("again") == whole
    assert trained("other", seed=1) != whole
    stopped = tmp_path / "again"
    assert sorted(p.name for p in stopped.glob("checkpoints/checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]
    shutil.rmtree(stopped / "checkpoints" / "checkpoint-6")
    (stopped / WEIGHTS).unlink()
    (stopped / "checkpoints" / "checkpoint-5").mkdir()  # one that was being written
    assert trained("again", resume=True) == whole
    summary = json.loads((stopped / "training_summary.json").read_text())
    assert summary["resumed_from"] == "checkpoint-4"
    assert summary["losses"] == json.loads((tmp_path / "whole" / "training_summary.json").read_text())["losses"]
    with pytest.raises(InputError, match="learning_rate"):
        trained("again", resume=True, learning_rate=1e-3)
    with pytest.raises(InputError, match="holds a run already"):
        trained("again")


def test_what_killed_writers_left_goes_when_the_run_begins_again(tmp_path):
    folder = output.begin(tmp_path, {})
    (tmp_path / ".writing-abc").mkdir()
    for left in (
        tmp_path / ".writing-abc" / WEIGHTS,
        tmp_path / ".training_summary.json.abc",
        folder / ".run.json.abc",
    ):
        left.write_text("half")
    (tmp_path / ".gitignore").write_text("kept")
    output.begin(tmp_path, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [".gitignore", "checkpoints"]
    assert [p.name for p in folder.iterdir()] == ["run.json"]


def test_rows_exported_for_trl_are_taken_as_they_are(tmp_path):
    export.run(export.Settings(data=ready(tmp_path, 100), to="trl", out=tmp_path / "sft", quiet=True))
    shards = tmp_path / "sft" / "prompts" / "train-*.parquet"
    from_files = train_qlora.run(settings(tmp_path, shards, dry_run=True, max_train_samples=10))
    pytest.importorskip("datasets")
    named = train_qlora.run(
        settings(tmp_path, "", train_files=(), dataset_name=str(tmp_path / "sft"), dry_run=True, max_train_samples=10)
    )
    assert named["data"]["sha256"] == from_files["data"]["sha256"]
    assert named["data"]["rows"] == 10


def test_files_are_named_with_their_digests(tmp_path, data):
    other = lines(Path(tmp_path / "other.jsonl"), ROWS[:2])
    result = train_qlora.run(settings(tmp_path, data, dry_run=True, train_files=(str(data), str(other))))
    assert list(result["data"]["files"]) == [str(data), str(other)]
    assert result["data"]["rows"] == 14
