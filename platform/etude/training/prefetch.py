"""Batches made ready while the one before is worked on."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], ahead: int = 2) -> Generator[T, None, None]:
    """The same items in the same order, up to `ahead` of them made beforehand by one thread.

    An error while making an item is raised where that item would have come.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    waiting: deque[Future[tuple[T] | None]] = deque()

    def make() -> tuple[T] | None:
        for item in source:
            return (item,)
        return None

    try:
        waiting.extend(pool.submit(make) for _ in range(ahead))
        while (made := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(make))
            yield made[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
