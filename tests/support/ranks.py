"""Two processes that can gather and sum, as two workers of one run."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from etude.services.daemon import free_port


def on_two_ranks(function: Callable[..., Any], folder: Path, *arguments: Any) -> tuple[Any, Any]:
    """What `function(rank, *arguments)` returns on each of two ranks, which are processes of their own."""
    torch.multiprocessing.spawn(_rank, (free_port(), folder, function, arguments), nprocs=2)
    first, second = (torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(2))
    return first, second


def _rank(
    rank: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(function(rank, *arguments), folder / f"rank-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
