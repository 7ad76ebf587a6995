"""What the listings of media servers share: pages become tracks, and fields may hold anything."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


def synchronous(pages: AsyncGenerator[list[T], None], close: Callable[[], Awaitable[None]]) -> Iterator[T]:
    """What an asynchronous listing yields, page by page, in an event loop of its own."""

    async def following() -> list[T] | None:
        return await anext(pages, None)

    async def finish() -> None:
        await pages.aclose()
        await close()

    with asyncio.Runner() as runner:
        try:
            while (page := runner.run(following())) is not None:
                yield from page
        finally:
            runner.run(finish())


async def paged(
    page_after: Callable[[int], Awaitable[list[dict[str, Any]]]], name: str
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """A listing's items, each once by its field `name`, until a page brings nothing new.

    `page_after(n)` asks for what follows the first n items; the totals that servers give are not believed.
    """
    seen: set[str] = set()
    start = 0
    while new := unseen(page := await page_after(start), name, seen):
        yield new
        start += len(page)
    if page:
        log.warning("the server repeats its first %d items: if it has more, they are not listed", start)


def unseen(items: list[dict[str, Any]], name: str, seen: set[str]) -> list[dict[str, Any]]:
    """The items whose field `name` is not in `seen`, which it joins."""
    new = []
    for item in items:
        if (value := text_of(item, name)) not in seen:
            seen.add(value)
            new.append(item)
    return new


def items_of(body: Any, *names: str) -> list[dict[str, Any]]:
    """The objects in the list below these names; empty if there is no such list."""
    for name in names:
        body = body.get(name) if isinstance(body, dict) else None
    return [item for item in body if isinstance(item, dict)] if isinstance(body, list) else []


def text_of(item: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that holds a text or a number, as text that can be stored; else empty."""
    for name in names:
        value = item.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value).encode("utf-8", "replace").decode().strip()
    return ""


def texts_of(item: Mapping[str, Any], name: str) -> str:
    """The texts in a field that holds a list of them, joined; else empty."""
    values = item.get(name)
    texts = [text_of({"": value}, "") for value in values] if isinstance(values, list) else []
    return "; ".join(text for text in texts if text)


def number_of(item: Mapping[str, Any], name: str) -> float | None:
    """A field that holds a positive number; else None."""
    value = item.get(name)
    return value if isinstance(value, int | float) and 0 < value < float("inf") else None


def named(wanted: str, places: Mapping[str, str]) -> str | None:
    """The id of the place with this id or, whatever its capitals, this name; `places` maps ids to names."""
    if wanted in places:
        return wanted
    return next((id for id, name in places.items() if name.casefold() == wanted.casefold()), None)


def digest(*parts: str) -> str:
    """Sixteen hexadecimal digits for an id: the same for the same parts, safe as a file name."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
