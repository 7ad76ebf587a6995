"""What planning costs as a library grows: seconds and memory against a store that holds half of it.

    python benchmarks/catalogue.py [--tracks 1000000]

A made-up source lists tracks as AudioMuse-AI's database has them; every second one is committed, in shards
of 8. Each size is planned in a process of its own, once with a file for every shard's commit, as a run that
was killed before it could put them together leaves the store, and once compacted. The baseline is a tenth
of the library: the ratio tells whether cost grows in proportion.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from etude.audio.recipe import FeatureRecipe
from etude.cli import guarded
from etude.data.plan import compare
from etude.data.store import Store, features_part, targets_part
from etude.evaluation.speed import peak_mb
from etude.sources.base import Track

RECIPE = FeatureRecipe()
PARTS = features_part(RECIPE), targets_part("made-up-0", RECIPE)
SHARD_TRACKS = 8
LIMIT_S, LIMIT_MIB = 60, 2048


class MadeUp:
    """A source that lists `n` tracks and has the audio of none."""

    id = "made-up"

    def __init__(self, n: int) -> None:
        self.n = n

    def tracks(self) -> Iterator[Track]:
        for i in range(self.n):
            tags = {
                "item_id": f"fp_1{i:050x}",
                "provider_id": f"{i:032x}",
                "tempo": "121.5",
                "key": "C",
                "scale": "major",
                "energy": "0.2015",
                "moods": "rock:0.560,pop:0.548,indie:0.540,female vocalists:0.538,folk:0.530",
                "features": "danceable:0.62,aggressive:0.65,happy:0.50,party:0.49,relaxed:0.55,sad:0.47",
                "year": "1999",
            }
            yield Track(
                id=f"audiomuse-{i * 0x9E3779B97F4A7C15 % 2**64:016x}",
                uri=f"audiomuse:{i:032x}",
                title=f"Track {i}",
                artist=f"Artist {i % 9000}",
                album=f"Album {i // 12}",
                duration_s=180 + i % 200,
                tags=tags,
            )

    async def fetch(self, track: Track) -> bytes:
        raise FileNotFoundError(track.uri)

    async def aclose(self) -> None:
        pass


def fill(store: Store, n: int) -> None:
    """Commit every second track in both parts; the rows hold nothing else, planning never opens them."""
    ids = [track.id for track in MadeUp(n).tracks()][::2]
    for part in PARTS:
        for start in range(0, len(ids), SHARD_TRACKS):
            store.write_shard(part, pa.table({"track_id": ids[start : start + SHARD_TRACKS]}))


def measure(root: str, n: int) -> dict[str, float]:
    """Plan in this process; imports count for memory, not for time."""
    start, start_cpu = time.perf_counter(), time.process_time()
    planned = compare(MadeUp(n), Store(root), PARTS, RECIPE.id, again=False)
    described = planned.describe(os.cpu_count() or 1)
    took = {"s": time.perf_counter() - start, "cpu_s": time.process_time() - start_cpu}
    assert (planned.todo, planned.found) == (n // 2, n - n // 2), described
    return took | {"MiB": peak_mb() * 1e6 / 2**20}


def apart(root: str, n: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    words = [sys.executable, __file__, "--tracks", str(n), "--store", root]
    measured: dict[str, float] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    return measured


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--store", help="only plan against this store, and print what it took as JSON")
    chosen = parser.parse_args(argv)
    if chosen.store:
        print(json.dumps(measure(chosen.store, chosen.tracks)))
        return 0
    os.fsync = lambda file: None  # filling the stores is not what is measured
    figures: dict[str, list[dict[str, float]]] = {"killed": [], "compacted": []}
    sizes = (chosen.tracks // 10, chosen.tracks)
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder, "store"))
            fill(store, n)
            figures["killed"].append(apart(store.root, n))
            for part in PARTS:
                store.compact(part)
            figures["compacted"].append(apart(store.root, n))
    for state, (small, large) in figures.items():
        print(f"store {state}:")
        for n, took in zip(sizes, (small, large), strict=True):
            print(
                f"  {n:9d} tracks {took['s']:8.1f} s {took['cpu_s']:8.1f} s of a core {took['MiB']:8.0f} MiB"
            )
        print(f"  ratio of a core's seconds {large['cpu_s'] / small['cpu_s']:6.1f}  (in proportion: 10)")
    worst = {unit: max(took[unit] for took in [f[-1] for f in figures.values()]) for unit in ("s", "MiB")}
    print(f"at most {worst['s']:.1f} s (wanted: {LIMIT_S}) and {worst['MiB']:.0f} MiB (wanted: {LIMIT_MIB})")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
