"""What a training step of each projection head takes: memory and time, 32 texts at once and 4,096 in chunks.

    python benchmarks/projection.py [--spaces latent muq mert] [--text-dims 2560 384] [--batch 4096]

A step is the head's vectors of made-up texts, the contrastive loss against made-up vectors of the space, the
gradients, and AdamW's update. The large batch goes through in chunks with cached gradients, so that the loss
compares all of it, while batch norm has the statistics of a chunk. In the widest space the vectors
themselves, [4096, 76800], are 1.3 GB, and the loss holds them several times, whatever the head.

Every case runs in a process of its own. Memory is what the case raises its process's highest resident memory
by, with libraries loaded and warm; time is the median of the processor's time, in which other programs' does
not count. Ratios are to the dense head with the small batch, for the same space and texts, in the same run;
that of time is by text.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from etude.cli import guarded, say
from etude.errors import UserError
from etude.evaluation.speed import peak_mb
from etude.objectives.contrastive import Contrast, ContrastiveConfig
from etude.students.projection import ProjectionHead, ProjectionHeadConfig
from etude.training.chunked import encode_in_chunks

SPACES = {"latent": 576, "muq": 1536, "mert": 76_800}  # facts/projection_and_emotion.md, a
DENSE, FACTORED = "dense", "factored"
HEADS: dict[str, dict[str, dict[str, int]]] = {
    "latent": {DENSE: {}},
    "muq": {DENSE: {}},
    "mert": {DENSE: {"rank": 2048}, FACTORED: {}},
}
ALONE = "--alone"


@dataclass(frozen=True)
class Case:
    """One head with one size of batch."""

    space: str
    text_dim: int
    head: str
    batch: int
    chunk: int | None
    rounds: int


@dataclass(frozen=True)
class Found:
    """What a step of it takes."""

    parameters: int
    mb: float
    ms: float


def main(argv: list[str]) -> int:
    if argv[:1] == [ALONE]:
        print(json.dumps(asdict(measure(Case(**json.loads(argv[1]))))))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--text-dims", nargs="+", type=int, default=[2560, 384])
    parser.add_argument("--plain", type=int, default=32, help="texts in the batch that goes through at once")
    parser.add_argument("--batch", type=int, default=4096, help="texts in the batch that goes in chunks")
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument(
        "--rounds", type=int, default=3, help="steps that are measured, after one that is not"
    )
    chosen = parser.parse_args(argv)
    if min(chosen.plain, chosen.chunk) < 2 or chosen.chunk >= chosen.batch:
        raise UserError("batch norm needs 2 texts or more at once, and the large batch several chunks")
    say("| space | texts | head | parameters | batch | MB | ratio | ms a step | ratio by text |")
    say("|---|---|---|---|---|---|---|---|---|")
    for space in chosen.spaces:
        for text_dim in chosen.text_dims:
            _compare(space, text_dim, chosen)
    return 0


def _compare(space: str, text_dim: int, chosen: argparse.Namespace) -> None:
    """The rows of one space for texts of one size; the first is the baseline."""
    baseline: Found | None = None
    for head in HEADS[space]:
        for batch, chunk in ((chosen.plain, None), (chosen.batch, chosen.chunk)):
            found = _in_a_process(Case(space, text_dim, head, batch, chunk, chosen.rounds))
            baseline = baseline or found
            by_text = (found.ms / batch) / (baseline.ms / chosen.plain)
            how = f"{batch} in chunks of {chunk}" if chunk else f"{batch}"
            say(
                f"| {space} {SPACES[space]} | {text_dim} | {head} | {found.parameters / 1e6:.2f} M | {how} "
                f"| {found.mb:.0f} | {found.mb / baseline.mb:.2f} | {found.ms:.0f} | {by_text:.2f} |"
            )


def _in_a_process(case: Case) -> Found:
    command = [sys.executable, __file__, ALONE, json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode < 0:
        raise UserError(
            f"{case.space}'s {case.head} head at {case.batch} texts was killed by signal {-done.returncode}, "
            "as happens where memory ends: choose a smaller --batch, or leave the space out of --spaces"
        )
    if done.returncode:
        raise RuntimeError(f"{case} could not be measured:\n{done.stderr}")
    return Found(**json.loads(done.stdout.splitlines()[-1]))


def measure(case: Case) -> Found:
    """The case in this process, which must have done nothing large before."""
    _steps(ProjectionHead(8, ProjectionHeadConfig(), 16), 4, 2, 1)  # what libraries take once
    before = peak_mb()
    torch.manual_seed(0)
    settings: dict[str, Any] = HEADS[case.space][case.head]
    head = ProjectionHead(case.text_dim, ProjectionHeadConfig(**settings), SPACES[case.space])
    ms = _steps(head, case.batch, case.chunk, case.rounds)
    return Found(sum(p.numel() for p in head.parameters()), peak_mb() - before, ms)


def _steps(head: ProjectionHead, batch: int, chunk: int | None, rounds: int) -> float:
    """Median of the processor's time for a step, in ms."""
    contrast = Contrast(ContrastiveConfig(chunk=chunk))
    optimizer = torch.optim.AdamW([*head.parameters(), *contrast.parameters()])
    text = torch.empty(batch, head.linear1.in_features).normal_()  # in place: memory is measured here
    music = torch.empty(batch, head.linear2.out_features).normal_()
    head.train()
    took: list[float] = []
    for _ in range(rounds + 1):
        started = time.process_time()
        optimizer.zero_grad()
        contrast(music, encode_in_chunks(head, (text,), chunk), torch.arange(batch)).backward()
        optimizer.step()
        took.append(1000 * (time.process_time() - started))
    return statistics.median(took[1:])


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
