"""Threads that read ahead and write behind: order, bounds, errors, and that none is left."""

import threading

import pytest

from experiments.corpus.overlap import ahead, behind


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("ahead", "behind"))]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_items_come_in_order_and_not_too_early(most):
    made, asked = [], 0

    def items():
        for k in range(20):
            made.append(k)
            yield k

    for asked, item in enumerate(ahead(items(), most), start=1):
        assert item == asked - 1
        assert len(made) <= asked + most
    assert (asked, threads()) == (20, [])


@pytest.mark.parametrize("most", [0, 2])
def test_an_error_arrives_where_items_are_asked_for(most):
    def items():
        yield 1
        raise ValueError("torn")

    found = ahead(items(), most)
    assert next(found) == 1
    with pytest.raises(ValueError, match="torn"):
        next(found)
    assert threads() == []


@pytest.mark.parametrize("most", [0, 2])
def test_who_stops_asking_leaves_no_thread(most):
    closed = []

    def items():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    found = ahead(items(), most)
    assert next(found) == 0
    found.close()
    assert (closed, threads()) == ([True], [])
    ahead(items(), most).close()  # never begun
    assert threads() == []


@pytest.mark.parametrize("most", [0, 1, 3])
def test_work_is_done_in_order_before_the_block_ends(most):
    done = []
    with behind(most) as do:
        for k in range(20):
            do(done.append, k)
            assert len(done) >= k - most
    assert (done, threads()) == (list(range(20)), [])


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 10])
def test_failed_work_fails_the_block(most, after):
    def fail():
        raise OSError(28, "No space left on device")

    def work():
        with behind(most) as do:
            do(fail)
            for _ in range(after):
                do(int)

    with pytest.raises(OSError, match="No space left"):
        work()
    assert threads() == []


def test_a_block_that_fails_ends_the_thread():
    def work():
        with behind(2) as do:
            do(int)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert threads() == []
