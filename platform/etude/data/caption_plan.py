"""Where captions lie in a store, which are missing, and what they may cost.

They lie in `captions/<maker id>/`, one row a track: its captions, who made them, hashes of the facts and of
the prompt that they were made from, and the tokens that they took. A track whose facts have changed is made
anew; its old row may stay in another shard and is passed over, as its hash tells. Captions that came with the
music lie in the catalogue instead, and nothing is ever written of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from etude.data.store import Quarantined, Store
from etude.errors import UserError
from etude.sources.base import Track
from etude.sources.caption_prompt import CAPTION_TOKENS, SYSTEM, about_tokens, prompt_of
from etude.sources.captions import CaptionConfig, OpenAICaptions, OwnCaptions, own_captions
from etude.sources.facts import Facts, facts_of

CAPTIONS = pa.schema(
    [
        ("track_id", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("maker", pa.string()),
        ("facts", pa.string()),
        ("prompt", pa.string()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
    ]
)
Similar = Mapping[str, Sequence[str]]  # ids of tracks that sound alike, by track id


@dataclass(frozen=True)
class CaptionPlan:
    """What a run would do."""

    facts: Mapping[str, Facts]  # of every track, by id; none are needed where nothing can be made
    todo: tuple[Track, ...]
    found: int
    quarantined: Mapping[str, Quarantined]  # left alone
    again: Mapping[str, Quarantined]  # in quarantine, but tried once more
    tokens_in: int = 0  # estimates: four characters a token, thirty tokens a caption
    tokens_out: int = 0
    usd: float = 0.0
    budget_usd: float | None = None  # None: nothing is spent
    own: bool = False  # they came with the music: there is nothing to make

    def check(self, config: CaptionConfig) -> None:
        """Raise UserError if there would be no captions: none came, there is no usable key, or no budget."""
        if isinstance(config, OwnCaptions) and not self.found:
            raise UserError(
                f"none of the {len(self.quarantined)} tracks came with captions: set captions.name to "
                "template or openai, or choose a source that brings some"
            )
        if not (isinstance(config, OpenAICaptions) and self.tokens_out):
            return
        config.check_key()
        if self.usd > 0 and not config.budget_usd:
            raise UserError(
                f"captions.budget_usd is 0, and these captions may cost about {self.usd:.2g} US dollars: set "
                "the most that they may cost"
            )

    def describe(self) -> str:
        """Tracks, tokens and cost, for `--plan`."""
        if self.own:
            return f"captions came with {self.found} tracks, {len(self.quarantined)} have none"
        lines = [
            f"captions made before: {self.found}, in quarantine: {len(self.quarantined)}",
            f"captions to make: {len(self.todo)} tracks",
        ]
        if self.budget_usd is not None:
            lines[1] += (
                f", about {self.tokens_in} tokens sent and {self.tokens_out} answered "
                f"(4 characters a token), about {self.usd:.2f} US dollars; "
                f"captions.budget_usd is {self.budget_usd:g}"
                + (", which may not suffice" if self.budget_usd < self.usd else "")
            )
        return "\n".join(lines)


def captions_part(config: CaptionConfig) -> str:
    """Where a maker's captions lie, and its quarantine."""
    return f"captions/{config.id}"


def plan_captions(
    store: Store,
    tracks: Sequence[Track],
    config: CaptionConfig,
    similar: Similar | None = None,
    again: bool = False,
) -> CaptionPlan:
    """Find what is missing and what it may cost; writes nothing and asks nobody.

    `again` tries the tracks in quarantine; one whose facts have changed is tried anyway.
    """
    if len({track.id for track in tracks}) != len(tracks):
        raise ValueError("a track is named twice: list each once")
    if isinstance(config, OwnCaptions):
        return _plan_own(tracks)
    facts = {track.id: facts_of(track) for track in tracks}
    part = captions_part(config)
    there = {row["track_id"] for row in current_rows(store, part, facts)}
    bad = {track_id: row for track_id, row in store.quarantined(part).items() if track_id in facts}
    left = {
        track_id: row
        for track_id, row in bad.items()
        if track_id not in there and row.made_from == facts[track_id].hash and not again
    }
    todo = tuple(track for track in tracks if track.id not in there and track.id not in left)
    tried = {track.id: bad[track.id] for track in todo if track.id in bad}
    if not isinstance(config, OpenAICaptions):
        return CaptionPlan(facts, todo, len(there), left, tried)
    asked = [track for track in todo if facts[track.id].usable]
    prompts = (
        prompt_of(facts[track.id], alike(track.id, facts, similar, config), config.per_track)
        for track in asked
    )
    tokens_in = sum(about_tokens(SYSTEM + prompt) for prompt in prompts)
    tokens_out = len(asked) * config.per_track * CAPTION_TOKENS
    usd = config.usd(tokens_in, tokens_out)
    return CaptionPlan(facts, todo, len(there), left, tried, tokens_in, tokens_out, usd, config.budget_usd)


def _plan_own(tracks: Sequence[Track]) -> CaptionPlan:
    """Those without are in this plan's quarantine, not in the store's: the catalogue tells as well."""
    without = {
        track.id: Quarantined(track.id, track.uri, track.title, "captions", "it came without captions")
        for track in tracks
        if not own_captions(track.captions)
    }
    return CaptionPlan({}, (), len(tracks) - len(without), without, {}, own=True)


def alike(
    track_id: str, facts: Mapping[str, Facts], similar: Similar | None, config: CaptionConfig
) -> list[Facts]:
    """Facts of the tracks that a prompt tells of."""
    n = config.similar if isinstance(config, OpenAICaptions) else 0
    ids = similar.get(track_id, ()) if similar else ()
    return [facts[other] for other in ids if other in facts][:n]


def current_rows(store: Store, part: str, facts: Mapping[str, Facts]) -> Iterator[dict[str, Any]]:
    """The rows of these tracks that were made from these facts."""
    for row in rows_of(store, part):
        if row["track_id"] in facts and row["facts"] == facts[row["track_id"]].hash:
            yield row


def rows_of(store: Store, part: str) -> Iterator[dict[str, Any]]:
    """All rows of a part."""
    for shard in sorted(set(store.commits(part)["shard"].to_pylist())):
        yield from store.read_shard(part, shard).to_pylist()
