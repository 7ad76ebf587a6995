"""Captions of a library in its store: what is missing is made, kept in small shards and read again."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from etude.data.caption_plan import (
    CAPTIONS,
    CaptionPlan,
    Similar,
    alike,
    captions_part,
    current_rows,
    plan_captions,
    rows_of,
)
from etude.data.store import Quarantined, Store
from etude.errors import UserError
from etude.sources.base import Track
from etude.sources.caption_budget import Ledger, OverBudget
from etude.sources.caption_templates import Templates
from etude.sources.captions import (
    CaptionConfig,
    CaptionMaker,
    Made,
    NoCaptions,
    OpenAICaptions,
    OwnCaptions,
    TemplateCaptions,
    own_captions,
)
from etude.sources.facts import Facts, facts_of

BATCH_TRACKS = 32  # written at a time; a language model's answers are kept one by one before


@dataclass
class CaptionReport:
    """What a run did; every track is in exactly one of the counts."""

    total: int
    found: int = 0  # there before
    made: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    requests: int = 0
    spent_usd: float = 0.0  # of captions.budget_usd, by all runs

    def check(self) -> None:
        """Rows in must equal rows with captions plus quarantined."""
        out = self.found + self.made + len(self.quarantined)
        assert out == self.total, f"{self.total} tracks went in, {out} came out"


def prepare_captions(
    store: Store,
    tracks: Sequence[Track],
    config: CaptionConfig,
    cache: Path,
    progress: Callable[[int, int], None],
    similar: Similar | None = None,
    again: bool = False,
) -> CaptionReport:
    """Make what is missing; a track without captions is in quarantine, with its reason.

    `cache` is a folder for a language model's costs and answers, so that nothing is paid for twice. Raises
    UserError if a key, a model or a budget does not suffice; what was made until then is stored.
    """
    plan = plan_captions(store, tracks, config, similar, again)
    report = CaptionReport(len(tracks), plan.found, quarantined=list(plan.quarantined.values()))
    progress(0, len(plan.todo))
    if plan.todo:
        asyncio.run(_Run(store, config, cache, plan, similar, report, progress).run())
    report.check()
    return report


def read_captions(store: Store, config: CaptionConfig, tracks: Sequence[Track]) -> dict[str, tuple[str, ...]]:
    """The captions of those of the tracks that have some: their own, or made from what is known now."""
    if isinstance(config, OwnCaptions):
        said = {track.id: own_captions(track.captions) for track in tracks}
        return {track_id: captions for track_id, captions in said.items() if captions}
    facts = {track.id: facts_of(track) for track in tracks}
    rows = current_rows(store, captions_part(config), facts)
    captions = {row["track_id"]: tuple(row["captions"]) for row in rows}
    return {track.id: captions[track.id] for track in tracks if track.id in captions}


class _Run:
    """One run over the tracks of a plan."""

    def __init__(
        self,
        store: Store,
        config: CaptionConfig,
        cache: Path,
        plan: CaptionPlan,
        similar: Similar | None,
        report: CaptionReport,
        progress: Callable[[int, int], None],
    ) -> None:
        self._store, self._config, self._plan, self._report = store, config, plan, report
        self._part = captions_part(config)
        self._cache, self._similar, self._progress = cache, similar, progress
        self._waiting = iter(plan.todo)
        self._made: list[dict[str, object]] = []
        self._done = 0
        self._failed: Exception | None = None

    async def run(self) -> None:
        """Make the captions, several tracks at a time; what is finished is stored whatever happens."""
        config = self._config
        ledger = model = None
        maker: CaptionMaker
        if isinstance(config, OpenAICaptions):
            from etude.sources.caption_client import LanguageModel  # takes seconds to import

            ledger = _ledger(config, self._cache, self._store)
            maker = model = LanguageModel(config, ledger)
        else:
            assert isinstance(config, TemplateCaptions), f"{config.id} makes no captions"
            maker = Templates(config)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(config.concurrency if isinstance(config, OpenAICaptions) else 1):
                    group.create_task(self._work(maker))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self._write()
            await maker.aclose()
            self._report.requests = model.requests if model else 0
            self._report.spent_usd = ledger.spent_usd if ledger else 0.0
        if isinstance(self._failed, OverBudget) and isinstance(config, OpenAICaptions):
            report, plan = self._report, self._plan
            raise UserError(
                f"spent {report.spent_usd:.4f} of {config.budget_usd:g} US dollars, "
                f"{report.found + report.made} of {report.total} tracks have captions, and another request "
                f"may cost more than is left (the {len(plan.todo)} tracks that had none were estimated at "
                f"{plan.usd:.4f}): raise captions.budget_usd and run again"
            )
        if self._failed:
            raise self._failed

    async def _work(self, maker: CaptionMaker) -> None:
        for track in self._waiting:
            facts = self._plan.facts[track.id]
            try:
                others = alike(track.id, self._plan.facts, self._similar, self._config)
                self._keep(track, facts, await maker.make(track, facts, others))
            except NoCaptions as why:
                self._refuse(track, facts, str(why))
            except (UserError, OverBudget) as error:
                self._failed = self._failed or error
                return
            self._done += 1
            self._progress(self._done, len(self._plan.todo))
            await asyncio.sleep(0)  # where Ctrl-C can come in

    def _keep(self, track: Track, facts: Facts, made: Made) -> None:
        self._made.append(
            {
                "track_id": track.id,
                "captions": list(made.captions),
                "maker": made.maker,
                "facts": facts.hash,
                "prompt": made.prompt,
                "tokens_in": made.tokens_in,
                "tokens_out": made.tokens_out,
            }
        )
        if len(self._made) >= BATCH_TRACKS:
            self._write()

    def _write(self) -> None:
        """Store what is made; a track leaves quarantine only once its captions are there."""
        if not self._made:
            return
        self._store.write_shard(self._part, pa.Table.from_pylist(self._made, schema=CAPTIONS))
        ids = [str(row["track_id"]) for row in self._made]
        self._store.release(self._part, [track_id for track_id in ids if track_id in self._plan.again])
        self._report.made += len(ids)
        self._made = []

    def _refuse(self, track: Track, facts: Facts, reason: str) -> None:
        before = self._plan.again.get(track.id)
        attempts = before.attempts + 1 if before else 1
        row = Quarantined(track.id, track.uri, track.title, "captions", reason, attempts, facts.hash)
        self._store.write_quarantine(self._part, [row])
        self._report.quarantined.append(row)


def _ledger(config: OpenAICaptions, cache: Path, store: Store) -> Ledger:
    """The costs so far: of the file, and of what the store holds that the file does not know."""
    ledger = Ledger(cache / "captions" / f"{config.id}.sqlite", config.budget_usd)
    known = ledger.tracks()
    others = [row for row in rows_of(store, captions_part(config)) if row["track_id"] not in known]
    ledger.elsewhere_usd = sum(config.usd(row["tokens_in"], row["tokens_out"]) for row in others)
    return ledger
