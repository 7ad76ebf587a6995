"""A stand-in for a server of the chat-completions protocol: real HTTP, no model behind it.

It checks key, model and request as such servers do, counts tokens, and lets answers go wrong as it is told.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from etude.sources.captions import OpenAICaptions
from tests.support.serving import serving

KEY = "sk-5ecret-key-of-the-stand-in"
MODEL = "stand-in-1"
STALL_S = 30.0  # far beyond any time-out in the tests
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]

Behaviour = Callable[[int, dict[str, Any]], str]  # what request n, from 0, with this JSON for a user, meets


class ChatServer:
    """What it has seen and counted; `behave` names what happens to each request, empty: an answer."""

    def __init__(
        self, behave: Behaviour = lambda n, asked: "", structured: bool = True, usage: str = "fair"
    ) -> None:
        self.behave = behave
        self.structured = structured  # knows response_format
        self.usage = usage  # fair, none, or most: as many tokens as a request can possibly cost
        self.hold_s = 0.005  # seconds that every request takes at least
        self.refuses = ""  # a parameter that the model does not take
        self.bodies: list[dict[str, Any]] = []
        self.behaviours: Counter[str] = Counter()
        self.tokens_in = self.tokens_out = 0  # billed
        self.under_way = self.most_under_way = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def n_requests(self) -> int:
        return len(self.bodies)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._complete)
        return application

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await asyncio.sleep(self.hold_s)
            return await self._answer(request)
        finally:
            self.under_way -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        n = len(self.bodies)
        self.bodies.append(body)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            given = request.headers.get("Authorization", "")
            return _error(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        if body["model"] != MODEL:
            return _error(404, f"The model `{body['model']}` does not exist", "model_not_found")
        if "response_format" in body and not self.structured:
            return _error(400, "Unsupported parameter: 'response_format'", "unsupported_parameter")
        if self.refuses in body:
            return _error(
                400, f"Unsupported value: '{self.refuses}' does not support 0.7", "unsupported_value"
            )
        asked = json.loads(body["messages"][1]["content"])
        kind = self.behave(n, asked)
        self.behaviours[kind] += 1
        if kind == "429":
            return _error(429, "Rate limit reached", "rate_limit_exceeded", {"Retry-After": "0.2"})
        if kind == "no credit":
            return _error(429, "You exceeded your current quota", "insufficient_quota")
        if kind.isdigit():
            return _error(int(kind), f"trouble with {KEY}", "server_error")
        if kind == "html":
            return web.Response(text="<html>log in first</html>", content_type="text/html")
        if kind == "broken":
            return web.Response(body=b'{"choices": [', content_type="application/json")
        if kind == "reset":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        content = json.dumps({"captions": captions(n, asked["captions_wanted"], kind)})
        message: dict[str, Any] = {"role": "assistant", "content": content}
        reason = "stop"
        if kind == "malformed":
            message["content"] = content[:-5]
        elif kind == "prose":
            message["content"] = f"Certainly!\n```json\n{content}\n```\nEnjoy."
        elif kind == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        elif kind in ("length", "content_filter"):
            message["content"], reason = content[:20], kind
        self._bill(body, message["content"] or "")
        if kind == "stall":  # the answer is made, and billed, but comes too late
            await asyncio.sleep(STALL_S)
        answer: dict[str, Any] = {
            "id": f"chatcmpl-{n}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        }
        if self.usage != "none":
            answer["usage"] = self._last
        return web.json_response(answer)

    def _bill(self, body: dict[str, Any], content: str) -> None:
        sent = json.dumps([body["messages"], body.get("response_format")], ensure_ascii=False)
        tokens_in, tokens_out = len(sent) // 4, len(content) // 4
        if self.usage == "most":
            tokens_in = len("".join(message["content"] for message in body["messages"]).encode())
            tokens_out = body["max_tokens"]
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self._last = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }


def captions(n: int, wanted: int, kind: str) -> list[object]:
    """Captions that differ from those of every other request, or what a model gives instead."""
    good: list[object] = [f"Request {n} brings a slow piece for {NUMBERS[i]} flutes" for i in range(wanted)]
    if kind == "few":
        return good[:1]
    if kind == "odd":  # every way in which a text is none
        broken = ["two\nlines of text here", "a bell \x07 rings out", "Медленная музыка для флейты"]
        return ["Too short", "same words here", "Same words, here!", 7, None, "w " * 41, *broken]
    return good


def _error(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"error": {"message": message, "type": code, "param": None, "code": code}}
    return web.json_response(error, status=status, headers=headers)


@contextmanager
def chat_server(*args: Any, **options: Any) -> Iterator[ChatServer]:
    """A running server on a free port, in a thread of its own."""
    server = ChatServer(*args, **options)
    with serving(server.application()) as server.port:
        yield server


def settings(server: ChatServer, **given: Any) -> OpenAICaptions:
    """How captions are asked of `server`."""
    defaults: dict[str, Any] = {
        "base_url": server.url,
        "model": MODEL,
        "key": KEY,
        "budget_usd": 1.0,
        "input_usd": 1.0,
        "output_usd": 2.0,
        "timeout_s": 20.0,
    }
    return OpenAICaptions(**(defaults | given))
