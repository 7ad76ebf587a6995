"""Captions by a language model, through the chat protocol of OpenAI that many servers speak.

A track is told of in JSON, with facts of tracks that sound alike and never with a path. What comes back is
checked, and what is missing is asked for again. The client's own retries are off: those here count every
request against the budget.
"""

import asyncio
import hashlib
import random
from collections.abc import Sequence

import openai
from openai import AsyncOpenAI

from etude.errors import UserError
from etude.sources.base import Track
from etude.sources.caption_answer import judged, read_answer, refuses_format
from etude.sources.caption_budget import Answers, Ledger, OverBudget
from etude.sources.caption_prompt import SYSTEM, body_of, most_tokens, prompt_of
from etude.sources.captions import (
    OPENAI_URL,
    Made,
    NoCaptions,
    OpenAICaptions,
    check_usable,
    usable_captions,
)
from etude.sources.facts import Facts
from etude.sources.http import MAX_WAIT_S, Pace, retry_after

FIRST_WAIT_S = 0.5


class _Fault(Exception):  # noqa: N818
    """What another try may mend."""

    def __init__(self, reason: str, wait_s: float = 0.0, unsent: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # what the server asks for
        self.unsent = unsent  # there is no server


class LanguageModel:
    """The maker of captions by a language model; `ledger` holds what they cost and what was answered."""

    def __init__(self, config: OpenAICaptions, ledger: Ledger) -> None:
        """Raises UserError if there is no key for OpenAI, or one that cannot be sent."""
        self._config = config
        self._ledger = ledger
        self._url = config.base_url or OPENAI_URL
        config.check_key()
        self._client = AsyncOpenAI(
            api_key=config.api_key or "none",  # a server of one's own may want none; the client insists
            base_url=self._url,
            max_retries=0,
            timeout=config.timeout_s,
        )
        self._slots = asyncio.Semaphore(config.concurrency)
        self._pace = Pace(config.requests_per_minute / 60 if config.requests_per_minute else None)
        self._under_way = 0
        self._settled = asyncio.Event()
        self._structured = True  # until the server refuses
        self._stopped: UserError | OverBudget | None = None
        self.requests = 0  # sent so far

    async def make(self, track: Track, facts: Facts, similar: Sequence[Facts] = ()) -> Made:
        """The track's captions: those answered before, and from the model what is missing.

        Raises NoCaptions if the model refuses or gives too few in all attempts, OverBudget, and UserError if
        key, model or address are refused or no server is there. After one of the last two nothing more is
        asked.
        """
        check_usable(facts)
        wanted = self._config.per_track
        # Two runs at a time may have been given the same.
        found = usable_captions(self._ledger.answers(track.id, facts.hash).captions)[0]
        why = ""
        for attempt in range(self._config.attempts):
            if len(found) >= wanted:
                break
            prompt = prompt_of(facts, similar, wanted - len(found), found)
            try:
                new, faults = await self._ask(track.id, facts, prompt, found)
                found += new
                why = f"{len(new)} more were usable" + (f" ({faults[0]})" if faults else "")
            except _Fault as fault:
                why = str(fault)
                if attempt + 1 < self._config.attempts:
                    backoff_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** (attempt + 1)) * random.random()
                    await asyncio.sleep(fault.wait_s + backoff_s)
                elif fault.unsent:
                    self._stopped = self._stopped or UserError(f"{why}: check captions.base_url")
                    raise self._stopped from None
            except (UserError, OverBudget) as error:
                self._stopped = self._stopped or error
                raise
        if len(found) < wanted:
            tries = "1 request" if self._config.attempts == 1 else f"{self._config.attempts} requests"
            raise NoCaptions(f"{len(found)} of {wanted} captions after {tries}; at last {why}")
        told = self._ledger.answers(track.id, facts.hash)
        asked = SYSTEM + prompt_of(facts, similar, wanted)
        prompt_hash = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return Made(tuple(found[:wanted]), self._config.model, prompt_hash, told.tokens_in, told.tokens_out)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(
        self, track_id: str, facts: Facts, prompt: str, known: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """New captions from one request, and why others are none. Raises as `make`, and _Fault."""
        async with self._slots:
            structured = self._structured
            try:
                text, entry = await self._send(prompt, structured)
            except openai.APIStatusError as error:
                if not (structured and refuses_format(error)):
                    raise self._meaning(error) from None
                self._structured = False
                try:
                    text, entry = await self._send(prompt, structured=False)
                except openai.APIStatusError as again:
                    raise self._meaning(again) from None
        answer = read_answer(text, prompt)
        new, faults = usable_captions(answer.texts, known)
        usd = self._config.usd(answer.tokens_in, answer.tokens_out)
        kept = Answers(tuple(new), answer.tokens_in, answer.tokens_out)
        self._ledger.settle(entry, usd, track_id, facts.hash, kept)
        self._end()
        if answer.refusal:
            raise NoCaptions(answer.fault)
        if answer.fault:
            raise _Fault(answer.fault)
        return new, faults

    async def _send(self, prompt: str, structured: bool) -> tuple[str, int]:
        """The text of an answer, with the reservation that its cost is to replace.

        Raises _Fault, APIStatusError or OverBudget; where nothing was billed, the reservation is taken back.
        """
        await self._pace.wait()
        entry = await self._reserve(self._config.usd(most_tokens(prompt), self._config.max_tokens))
        self.requests += 1
        body = body_of(self._config, prompt, structured)
        try:
            async with asyncio.timeout(self._config.timeout_s):
                response = await self._client.chat.completions.with_raw_response.create(**body)
                return response.text, entry
        except BaseException as error:
            unbilled = _unbilled(error)
            if unbilled:
                self._ledger.free(entry)
            self._end()
            if isinstance(error, openai.APITimeoutError | TimeoutError):
                raise _Fault(f"no answer came within {self._config.timeout_s:g} s") from None
            if isinstance(error, openai.APIConnectionError):
                what = f"no connection to {self._url}" if unbilled else "the connection broke off"
                raise _Fault(what, unsent=unbilled) from None
            raise

    async def _reserve(self, usd: float) -> int:
        """Wait until this much surely fits into the budget. Raises OverBudget if it never will."""
        while True:
            if self._stopped:
                raise self._stopped
            entry = self._ledger.reserve(usd)
            if entry is not None:
                self._under_way += 1
                return entry
            if not self._under_way:
                raise OverBudget
            self._settled.clear()  # what is under way will cost less than it may
            await self._settled.wait()

    def _end(self) -> None:
        self._under_way -= 1
        self._settled.set()

    def _meaning(self, error: openai.APIStatusError) -> Exception:
        meaning = judged(error, self._config)
        if meaning is not None:
            return meaning
        wait_s = retry_after(error.response.headers.get("Retry-After"))
        if wait_s is not None:
            self._pace.pause(wait_s)
        return _Fault(f"the server answered {error.status_code}", wait_s or 0.0)


def _unbilled(error: BaseException) -> bool:
    """Whether a request cost nothing: the server refused it, or never got it.

    What came too late or was broken off may be billed, so it stays counted at the most that it can cost.
    """
    if isinstance(error, openai.APIConnectionError):
        # The transport's ConnectError and ConnectTimeout; it is a package of the client's choice.
        return type(error.__cause__).__name__.startswith("Connect")
    return isinstance(error, openai.APIStatusError)
