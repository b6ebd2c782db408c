"""Work in threads whose results come in order."""

import threading
import time
import traceback
from contextlib import closing

import pytest

from segdeploy.threads import in_order


def helpers():
    """Threads of pools that still live."""
    return [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = helpers()
    yield
    assert helpers() == before


@pytest.mark.parametrize("workers", [1, 2, 5, None])
def test_results_come_in_order_whoever_is_done_first(workers):
    def slowest_first(item):
        time.sleep(0.02 / (1 + item % 5))
        return item * 10

    assert list(in_order(slowest_first, range(20), workers)) == [item * 10 for item in range(20)]
    assert list(in_order(slowest_first, [], workers)) == []


def test_calls_overlap_with_the_caller_and_each_other():
    meeting = threading.Barrier(3, timeout=10)  # two calls under way, and the caller

    def meet(item):
        if item in (1, 2):
            meeting.wait()
        return item

    results = in_order(meet, range(5), 2)
    assert next(results) == 0
    meeting.wait()
    assert list(results) == [1, 2, 3, 4]


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_is_read_ahead_than_workers(workers):
    asked = []

    def items():
        for item in range(100):
            asked.append(item)
            yield item

    with closing(in_order(str, items(), workers)) as results:
        for taken, _ in enumerate(results, start=1):
            assert len(asked) <= taken + workers
            if taken == 20:
                break
    assert len(asked) == 20 + workers


def test_source_is_advanced_by_the_caller_and_may_be_another_in_order():
    threads = set()

    def engine():
        with closing(in_order(lambda item: item + 1, range(30), 2)) as ready:
            for item in ready:
                threads.add(threading.current_thread())
                yield item * 2

    assert list(in_order(lambda item: -item, engine(), 2)) == [-2 * (item + 1) for item in range(30)]
    assert threads == {threading.current_thread()}


def test_first_failure_in_order_is_raised_in_its_place_with_its_traceback():
    begun = []

    def divide(item):
        begun.append(item)
        if item == 3:
            time.sleep(0.05)  # item 4 fails sooner
        return 1 / (0 if item in (3, 4) else 1)

    results = in_order(divide, range(100), 2)
    assert [next(results) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "divide"
    assert max(begun) <= 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_failure_of_the_source_ends_it(error):
    def items():
        yield from range(10)
        raise error("stop")

    with pytest.raises(error, match="stop"):
        list(in_order(str, items(), 3))


def test_close_begins_nothing_more():
    started, go = threading.Event(), threading.Event()
    begun = []

    def wait(item):
        begun.append(item)
        if item:
            started.set()
            go.wait(10)

    results = in_order(wait, range(100), 1)
    next(results)
    started.wait(10)
    threading.Timer(0.1, go.set).start()
    results.close()  # waits for item 1, which is under way
    assert go.is_set()
    assert begun == [0, 1]
