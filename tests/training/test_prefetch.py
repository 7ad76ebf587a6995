"""Items come in order, made beforehand; an error comes where its item would have."""

import threading

import pytest

from etude.training.prefetch import prefetch


def test_all_items_in_order() -> None:
    assert list(prefetch(range(20))) == list(range(20))
    assert list(prefetch([])) == []


def test_an_error_comes_in_its_place_and_no_thread_is_left() -> None:
    def items():  # type: ignore[no-untyped-def]
        yield 1
        raise OSError("gone")

    coming = prefetch(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="gone"):
        next(coming)
    unfinished = prefetch(iter(int, 1))
    next(unfinished)
    unfinished.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
