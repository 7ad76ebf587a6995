"""Processes that outlive the command that started them, found again by a file and ended by their id."""

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from etude.errors import UserError

PORTS = range(20_000, 32_768)  # of those, Linux hands out none by itself


@dataclass(frozen=True)
class Daemon:
    """A server that was started here."""

    name: str
    pid: int
    created: float  # with the id, this tells the process from a later one with the same id
    address: str
    ports: tuple[int, ...]


def ensure(folder: Path, name: str, launch: Callable[[], Daemon]) -> Daemon:
    """The server that runs, or the one that `launch` starts. Of several commands one starts it, all wait."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return find(folder, name) or launch()


def find(folder: Path, name: str) -> Daemon | None:
    """The server that an earlier command started, if it still runs."""
    path = folder / f"{name}.json"
    try:
        record = json.loads(path.read_text())
        daemon = Daemon(**record | {"ports": tuple(record["ports"])})
        process = psutil.Process(daemon.pid)
        running = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - daemon.created) < 1
    except (FileNotFoundError, json.JSONDecodeError, psutil.NoSuchProcess):
        return None
    return daemon if running else None


def start(
    folder: Path,
    name: str,
    command: Sequence[str],
    *,
    address: str,
    ports: Sequence[int],
    ready_urls: Sequence[str],
    env: Mapping[str, str],
    timeout_s: float = 300.0,  # a small machine that does other things, too
) -> Daemon:
    """Start a server in a session of its own and wait until all of `ready_urls` answer.

    Raises UserError if a port is taken, the process ends, or it does not answer in time.
    """
    for port in ports:
        if not port_is_free(port):
            raise UserError(
                f"port {port}, which {name} needs, is taken by another program: end that or choose another "
                f"with RAY_PORT, DASHBOARD_PORT or MLFLOW_PORT"
            )
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    # It outlives this command, whose settings and passwords it must not hand on to later jobs.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ETUDE_")}
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=inherited | dict(env),
        )
    daemon = Daemon(name, process.pid, psutil.Process(process.pid).create_time(), address, tuple(ports))
    temporary = folder / f"{name}.json.tmp"
    temporary.write_text(json.dumps(asdict(daemon)))
    os.replace(temporary, folder / f"{name}.json")
    try:
        for url in ready_urls:
            _wait(process, url, name, log, timeout_s)
    except BaseException:
        stop(folder, name)
        raise
    return daemon


def stop(folder: Path, name: str, timeout_s: float = 20.0) -> bool:
    """End a server that was started here, with its children; False if none runs."""
    daemon = find(folder, name)
    if daemon is None:
        (folder / f"{name}.json").unlink(missing_ok=True)
        return False
    process = psutil.Process(daemon.pid)
    family = [process, *process.children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=timeout_s)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=5)
    (folder / f"{name}.json").unlink(missing_ok=True)
    return True


def port_is_free(port: int) -> bool:
    """Whether this machine's loopback lets one listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """One of PORTS that nothing listens on now. Raises UserError if all are taken.

    None that the system would hand out: a server takes seconds until it listens, and Ray takes dozens of
    those meanwhile.
    """
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if port_is_free(port):
            return port
    raise UserError(f"no port from {PORTS[0]} to {PORTS[-1]} is free: end what listens there")


def _wait(process: subprocess.Popen[bytes], url: str, name: str, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(f"{name} ended at once (exit code {process.returncode}): the reason is in {log}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except urllib.error.HTTPError:
            return  # it answers, if only to refuse a caller without a token
        except OSError:
            time.sleep(0.2)
    raise UserError(f"{name} did not answer at {url} within {timeout_s:.0f} s: see {log}")
