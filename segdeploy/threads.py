"""Work for threads, whose results come in order: reading ahead of an engine, scoring and writing behind it."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from segdeploy.environment import available_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

    Item = TypeVar("Item")
    Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Generator[Result, None, None]:
    """`map(function, items)`, with the calls of the next `workers` items under way while the caller has a result.

    `items` is advanced by the caller's thread, so one `in_order` may be the source of another, with work between
    them that belongs to that thread. An exception of a call comes where its result would have come, with its own
    traceback. After an exception, and after `close`, no further item is taken; what is under way is waited for.

    Args:
        function: releases the interpreter's lock for most of its time, as decoding and NumPy do.
        items: what it is called with.
        workers: threads, and how many results are kept ready; None: one for each core, at least 2 and at most 8.
    """
    workers = workers or min(8, max(2, available_cores()))
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
