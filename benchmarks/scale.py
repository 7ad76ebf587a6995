"""How preparing grows with the nodes, and the driver's memory with the tracks.

    python benchmarks/scale.py [--tracks 20000] [--nodes 1 2 4] [--latency-ms 200] [--few 5000]

Each cluster is simulated on this machine: a Ray node of one CPU is a set of processes. The pipeline is the
real one, `etude.data.prepare`. What is made cheap is its input: half a second of a tone a track, each of
which takes `--latency-ms` to come (an asyncio.sleep in the source, 4 under way on each node), a small mel,
and a teacher that measures loudness. So fetching is the bottleneck, as with a server far away. Baseline: the
same tracks through one node, in the same run. No file comes before every node's teacher has started, so
that their start is not measured; it is told beside the rate, as the time to the first shard.
"""

import argparse
import json
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.nodes import nodes


def prepare(n_nodes: int, tracks: int, latency_s: float) -> dict[str, Any]:
    """What came of preparing so many tracks through so many nodes, and which nodes took part in what."""
    with tempfile.TemporaryDirectory() as folder, nodes(*[{"num_cpus": 1}] * n_nodes) as cluster:
        notes = Path(folder) / "notes"
        light = {
            "store": f"{folder}/store", "notes": str(notes), "tracks": tracks, "latency_s": latency_s,
            "shard_tracks": 64, "together": n_nodes,
        }  # fmt: skip
        driver = cluster.drive("tests.support.light", json.dumps(light))
        out, err = driver.communicate()
        if driver.returncode:
            raise RuntimeError(f"preparing failed:\n{err}")
        noted = [path.name.split("-") for path in notes.glob("*-*-*")]
        took_part = {step: len({node for what, _, node in noted if what == step}) for step, *_ in noted}
        return {
            **json.loads(next(line for line in out.splitlines() if line.startswith("{"))),
            "took_part": took_part,
        }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracks", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--latency-ms", type=float, default=200)
    parser.add_argument("--few", type=int, default=5_000, help="tracks of the run whose memory is compared")
    chosen = parser.parse_args(argv)
    latency_s = chosen.latency_ms / 1000
    print(f"{chosen.tracks} tracks, {chosen.latency_ms:.0f} ms each, 4 under way on a node", flush=True)
    most, first = max(chosen.nodes), None
    for n_nodes in chosen.nodes:
        came = prepare(n_nodes, chosen.tracks, latency_s)
        assert came["prepared"] + came["quarantined"] == came["total"] == chosen.tracks, came
        first = first or came
        print(
            f"{n_nodes} nodes: {came['rate']:.1f} tracks/s, {came['rate'] / first['rate']:.2f} times; "
            f"{came['start_s']:.0f} s to the first shard, driver {came['peak_mb']:.0f} MB, nodes at work: "
            f"{came['took_part']}",
            flush=True,
        )
        if n_nodes == most:
            many = came
    if chosen.few:
        few = prepare(most, chosen.few, latency_s)
        print(
            f"driver's memory: {few['peak_mb']:.0f} MB for {chosen.few} tracks, {many['peak_mb']:.0f} MB for "
            f"{chosen.tracks}: {many['peak_mb'] / few['peak_mb']:.2f} times"
        )
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as private:
        token = Path(private) / "token"
        token.write_text(secrets.token_hex(32))
        os.environ |= {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on the loopback only
        }  # fmt: skip
        sys.exit(main(sys.argv[1:]))
