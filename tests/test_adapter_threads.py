"""Many threads swap and serve: every answer is wholly that of one adapter, and no lease is left behind."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
import torch
from made_adapters import expected, inputs, manager_of

from hyperlora.adapters import NoRoom
from hyperlora.adapters.rows import row_layers

NAMES = [f"a{i}" for i in range(6)]
THREADS = 8


def which(output, references):
    """Names of the references that ``output`` is."""
    return [name for name, want in references.items() if torch.allclose(output, want, atol=1e-5, rtol=0)]


def work(manager, folder, references, x, seed, until, found, wrong):
    """Serve, swap and load in turn; record what was answered."""
    draw = torch.Generator().manual_seed(seed)
    try:
        while time.monotonic() < until:
            first, second = (NAMES[i] for i in torch.randperm(len(NAMES), generator=draw)[:2].tolist())
            kind = int(torch.randint(4, (1,), generator=draw))
            with contextlib.suppress(NoRoom), torch.no_grad():
                if kind == 0:
                    active = next(iter(manager.get_active_adapters()), first)
                    manager.swap(active, second)
                elif kind == 1:
                    with manager.serving({first: 1.0}):
                        answer = which(manager.model(x), references)
                    found.append(answer == [first])
                elif kind == 2:
                    with manager.serving_rows([first, None, second, first]):
                        y = manager.model(x)
                    rows = [first, "base", second, first]
                    found.append(all(torch.allclose(y[i], references[n][i], atol=1e-5) for i, n in enumerate(rows)))
                else:
                    with manager.serving() as names:
                        y = manager.model(x)
                    want = expected(x, {folder / name: 1.0 for name in names})
                    found.append(torch.allclose(y, want, atol=1e-5, rtol=0))
    except BaseException as error:
        wrong.append(error)


def storm(folder, seconds):
    manager, _, _ = manager_of(folder, NAMES, max_loaded=4)
    x = inputs()
    references = {"base": expected(x, {}), **{n: expected(x, {folder / n: 1.0}) for n in NAMES}}
    assert all(which(want, references) == [name] for name, want in references.items())  # they differ
    manager.load(NAMES[0])
    found, wrong = [], []
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=work, args=(manager, folder, references, x, seed, until, found, wrong))
        for seed in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert found
    assert all(found)
    status = manager.status()
    assert all(entry["leases"] == 0 for entry in status["loaded"])
    assert status["leaving"] == []
    assert status["counts"]["evictions"] + status["counts"]["loads"] > 1
    return len(found)


def test_threads_that_swap_and_serve_never_mix_adapters(tmp_path):
    storm(tmp_path, 3.0)


@pytest.mark.slow
def test_threads_that_swap_and_serve_for_a_minute(tmp_path):
    assert storm(tmp_path, 60.0) > 100


def test_a_swap_in_the_middle_of_a_pass_reaches_no_layer_of_it(tmp_path):
    manager, _, model = manager_of(tmp_path, NAMES[:2])
    x = inputs()
    old, new = (expected(x, {tmp_path / name: 1.0}) for name in NAMES[:2])
    assert (old - new).abs().max() > 0.01
    manager.load(NAMES[0])
    middle = list(row_layers(model).values())[2]
    other = threading.Thread(target=manager.swap, args=(NAMES[0], NAMES[1]))

    def swap_now(*_):
        if not other.ident:
            other.start()
            other.join(60)

    handle = middle.register_forward_pre_hook(swap_now)
    with torch.no_grad(), manager.serving():
        first = model(x)
    handle.remove()
    assert manager.get_active_adapters() == {NAMES[1]: 1.0}  # it has happened, in the middle
    torch.testing.assert_close(first, old, atol=1e-5, rtol=0)
    with torch.no_grad(), manager.serving():
        torch.testing.assert_close(model(x), new, atol=1e-5, rtol=0)
