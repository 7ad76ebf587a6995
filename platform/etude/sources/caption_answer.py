"""What a chat server's answer says: captions and tokens, or why there are none and whether to go on."""

import json
import re
from dataclasses import dataclass
from typing import Any

import openai

from etude.config import MASK
from etude.errors import UserError
from etude.sources.caption_prompt import most_tokens
from etude.sources.captions import KEY_VARIABLE, OPENAI_URL, NoCaptions, OpenAICaptions

SHOWN_CHARACTERS = 200  # of what a server says
NO_CREDIT = re.compile(r"insufficient_quota|insufficient balance|billing", re.IGNORECASE)
NO_FORMAT = re.compile(r"response_format|json_schema|structured output|guided", re.IGNORECASE)
SETTINGS = re.compile(r"\b(temperature|max_tokens|max_completion_tokens|model)\b")


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    texts: tuple[object, ...]  # as they came, not checked
    tokens_in: int
    tokens_out: int
    fault: str = ""  # why there are no texts; another try may mend it
    refusal: bool = False  # the model does not want to, which another try would not change


def read_answer(text: str, prompt: str) -> Answer:
    """Read a chat completion; tokens that it does not count are counted at their most. Never raises."""
    body = _json(text)
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    content = message.get("content")
    content = content if isinstance(content, str) else ""
    usage = body.get("usage") if isinstance(body, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    tokens_in = _count(usage.get("prompt_tokens"), most_tokens(prompt))
    tokens_out = _count(usage.get("completion_tokens"), len(content.encode("utf-8", "replace")))
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Answer((), tokens_in, tokens_out, "the model refuses to write captions of it", refusal=True)
    if choice.get("finish_reason") == "length":
        return Answer((), tokens_in, tokens_out, "its answer was cut off: raise captions.max_tokens")
    found = _json(content[content.find("{") : content.rfind("}") + 1])  # without fences and remarks
    captions = found.get("captions") if isinstance(found, dict) else None
    if not isinstance(captions, list):
        return Answer((), tokens_in, tokens_out, "its answer is not the JSON that was asked for")
    return Answer(tuple(captions), tokens_in, tokens_out)


def refuses_format(error: openai.APIStatusError) -> bool:
    """Whether a server cannot give JSON of a schema."""
    return error.status_code in (400, 422) and bool(NO_FORMAT.search(error.response.text))


def judged(error: openai.APIStatusError, config: OpenAICaptions) -> UserError | NoCaptions | None:
    """What an error status means: for all tracks, for this one, or, None, that another try may help."""
    status, said = error.status_code, error.response.text
    at = f"the server at {config.base_url or OPENAI_URL}"
    if status in (401, 403):
        return UserError(
            f"{at} refuses the key ({status}): set another as {KEY_VARIABLE} in the environment or in .env, "
            "or as captions.key"
        )
    if status == 402 or (status == 429 and NO_CREDIT.search(said)):
        return UserError(f"{at} says that the account of the key has no credit left: top it up and run again")
    if status in (404, 405):
        return UserError(
            f"{at} knows no model {config.model!r}, or is no such server ({status}): check captions.model "
            "and captions.base_url"
        )
    if status in (408, 409, 425, 429) or status >= 500:
        return None
    if status == 400 and (setting := SETTINGS.search(said)):
        return UserError(
            f"{at} refuses captions.{setting[1].replace('completion_', '')}: set another "
            f"({_shown(said, config.api_key)})"
        )
    return NoCaptions(f"the server refuses the request ({status}): {_shown(said, config.api_key)}")


def _shown(text: str, key: str) -> str:
    """The message in a server's answer, short, in one line and without the key."""
    body = _json(text)
    error = body.get("error") if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    plain = "".join(c if c.isprintable() else " " for c in (message if isinstance(message, str) else text))
    plain = plain.replace(key, MASK) if key else plain
    return " ".join(plain.split())[:SHOWN_CHARACTERS]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _count(value: object, most: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else most
