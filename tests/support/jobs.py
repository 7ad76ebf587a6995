"""The jobs as a user calls them."""

import io
import logging
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from etude.tracking import SETTINGS

REPOSITORY = Path(__file__).resolve().parents[2]


def command(job: str, *words: str) -> list[str]:
    """What starts a job in a process of its own."""
    return [sys.executable, str(REPOSITORY / "jobs" / f"{job}.py"), *words]


def environment(home: Path, **more: str) -> dict[str, str]:
    """As in a shell that never heard of Étude."""
    ours = ("RAY_", "ETUDE_", "MLFLOW_", "OPENAI_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return clean | {"ETUDE_HOME": str(home)} | more


def run(home: Path, job: str, *words: str, timeout_s: float = 1500) -> "subprocess.CompletedProcess[str]":
    """A job in a process of its own."""
    line = command(job, *words)
    return subprocess.run(
        line, env=environment(home), capture_output=True, text=True, timeout=timeout_s, check=False
    )


def call(home: Path, job: str, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """A job that starts no Ray, in this process: a new one would take most of its time to import."""
    out, err = io.StringIO(), io.StringIO()
    _, *line = command(job, *words)
    with (
        mock.patch.dict(os.environ, SETTINGS | environment(home, **more), clear=True),
        mock.patch("os.execve", side_effect=AssertionError("what starts Ray needs a process of its own")),
        mock.patch.object(sys, "argv", line),
        mock.patch.object(logging.root, "handlers", []),  # so that the job's own writes to this stderr
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            runpy.run_path(line[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())  # type: ignore[arg-type]
