"""Start, find and stop the local Ray head and MLflow server.

    python -m etude.services.local up        start what does not run yet, say where it listens
    python -m etude.services.local stop      end both
    python -m etude.services.local submit -- python jobs/tune_audio.py

`up` writes a file `env` that any shell can read to use both: `. ~/.local/share/etude/env`.
"""

import argparse
import hashlib
import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import dotenv

from etude.cli import guarded
from etude.config import PRIVATE_ENVIRONMENT, default_home
from etude.errors import UserError
from etude.services import daemon

# Ray takes 127.0.0.1 for the machine's outer address and listens everywhere, unless it is told what it
# assumes on Windows and macOS: that a head of one machine needs the loopback only.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
DASHBOARD = "RAY_API_SERVER_ADDRESS"  # by which Ray's own processes find it, too
# Places on the head for processes that wait for workers elsewhere, `etude.cluster.DRIVER`.
PLACES = {"train_driver": 64}
SECRETS = frozenset({"api_key", "dsn", "password", "token"})  # keys that no command line should hold
# glibc gives large arrays back at once and fetches them anew, page by page: a third of a training step.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
# Where actors are as many as CPUs, Ray ends the process of a task after one idle second, and the next task
# of its kind starts another: two seconds of a core for every shard that is written.
KEEP_WORKERS = {"RAY_idle_worker_killing_time_threshold_ms": "60000"}


@dataclass(frozen=True)
class Ports:
    """Where the servers listen, on 127.0.0.1."""

    ray: int = 6379
    dashboard: int = 8265
    mlflow: int = 5000

    @staticmethod
    def from_environment() -> "Ports":
        """Defaults unless RAY_PORT, DASHBOARD_PORT or MLFLOW_PORT say otherwise."""
        values = {}
        for name in ("ray", "dashboard", "mlflow"):
            text = os.environ.get(f"{name.upper()}_PORT")
            if text:
                if not text.isdigit() or not 1 <= int(text) <= 65535:
                    raise UserError(f"{name.upper()}_PORT is {text!r}: give a number from 1 to 65535")
                values[name] = int(text)
        return Ports(**values)


def mlflow_server(home: Path, port: int) -> str:
    """The address of the MLflow server over this home's database, started if it does not run."""
    folder = home / "services"
    return daemon.ensure(folder, "mlflow", lambda: _start_mlflow(home, folder, port)).address


def _start_mlflow(home: Path, folder: Path, port: int) -> daemon.Daemon:
    data = home / "mlflow"
    data.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", f"sqlite:///{data / 'mlflow.db'}",
        "--artifacts-destination", str(data / "artifacts"),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return daemon.start(
        folder, "mlflow", command, address=address, ports=[port], ready_urls=[f"{address}/health"], env=env
    )


def ray_head(home: Path, ports: Ports, tracking_uri: str) -> str:
    """The dashboard's address of this home's Ray head, started if it does not run.

    Token authentication is switched on here explicitly; `ray_environment` does the same for clients.
    """
    folder = home / "services"
    return daemon.ensure(folder, "ray", lambda: _start_ray(home, folder, ports, tracking_uri)).address


def _start_ray(home: Path, folder: Path, ports: Ports, tracking_uri: str) -> daemon.Daemon:
    address = f"http://127.0.0.1:{ports.dashboard}"
    agent = daemon.free_port()  # it takes the jobs, and is up some seconds after the dashboard
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        "--node-ip-address", "127.0.0.1", "--port", str(ports.ray), "--resources", json.dumps(PLACES),
        "--include-dashboard", "true", "--dashboard-host", "127.0.0.1",
        "--dashboard-port", str(ports.dashboard), "--disable-usage-stats",
        "--dashboard-agent-listen-port", str(agent), "--temp-dir", str(_ray_folder(home)),
    ]  # fmt: skip
    env = ray_environment(home) | {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "ETUDE_HOME": str(home),
        DASHBOARD: address,
        # Jobs must find this environment's python, whatever the shell's PATH says.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    return daemon.start(
        folder,
        "ray",
        command,
        address=address,
        ports=[ports.ray, ports.dashboard],
        ready_urls=[f"{address}/api/version", f"http://127.0.0.1:{agent}/api/local_raylet_healthz"],
        env=env,
    )


def _ray_folder(home: Path) -> Path:
    """Where this home's head keeps sockets and logs: paths of sockets are short, so it is not below home.

    Not /tmp/ray, where Ray notes which head of the machine is the newest and sends every job to that one.
    Ray opens its own folder to every user of the machine, so it lies in one that is this user's alone.
    Raises UserError if another user has taken that.
    """
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"etude-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder} belongs to another user of this machine: remove it, or set TMPDIR")
    folder.chmod(0o700)  # as older versions left it, it was open to all
    return folder / "ray"


def ray_environment(home: Path) -> dict[str, str]:
    """What every client of this home's Ray head needs; makes the token on first use."""
    token = home / "services" / "ray_token"
    token.parent.mkdir(parents=True, exist_ok=True)
    if not token.exists():
        temporary = token.with_suffix(f".{uuid.uuid4().hex}")
        temporary.touch(mode=0o600)
        temporary.write_text(secrets.token_hex(32))
        os.replace(temporary, token)
    return {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token),
        **LOOPBACK_ONLY, **KEEP_MEMORY, **KEEP_WORKERS,
    }  # fmt: skip


def up(home: Path, ports: Ports) -> dict[str, str]:
    """Start both servers; returns the environment in which jobs are submitted, also written to `env`."""
    tracking_uri = mlflow_server(home, ports.mlflow)
    dashboard = ray_head(home, ports, tracking_uri)
    env = ray_environment(home) | {
        DASHBOARD: dashboard,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "ETUDE_HOME": str(home),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in env.items()]
    (home / "env").write_text("\n".join(lines) + "\n")
    return env


def submit(home: Path, words: list[str]) -> int:
    """`ray job submit` on this home's head; Ctrl-C stops the job too. Returns the exit code."""
    head = daemon.find(home / "services", "ray")
    if head is None:
        raise UserError("no Ray head runs here: start one with `make up`")
    for word in words:
        key = word.removeprefix("--").split("=")[0]
        if word.startswith("--") and key.split(".")[-1] in SECRETS:
            name = f"ETUDE_{key.upper().replace('.', '__')}"
            raise UserError(f"--{key} would be read by all on this machine: put it into .env as {name}=...")
    ray = str(Path(sys.executable).with_name("ray"))
    env = {**os.environ, **ray_environment(home), DASHBOARD: head.address}
    env["PYTHONUNBUFFERED"] = "1"  # progress reaches a pipe as it happens
    job = f"etude-{uuid.uuid4().hex[:12]}"
    # A job's environment is the head's. What this shell says of Etude goes along in a file that only its
    # owner may read: it can hold passwords, and Ray shows a job's variables on its dashboard and in its logs.
    private = home / "services" / f"{job}.env"
    private.touch(mode=0o600)
    for name, value in os.environ.items():
        if name.startswith("ETUDE_"):
            dotenv.set_key(private, name, value)
    variables = {"ETUDE_HOME": str(home), PRIVATE_ENVIRONMENT: str(private)}
    tracking = daemon.find(home / "services", "mlflow")
    if tracking:
        variables["MLFLOW_TRACKING_URI"] = tracking.address
    options = ["--submission-id", job, "--runtime-env-json", json.dumps({"env_vars": variables})]
    client = subprocess.Popen([ray, "job", "submit", *options, "--", *words], env=env)
    try:
        return client.wait()
    except KeyboardInterrupt:
        client.wait()
        subprocess.run([ray, "job", "stop", job], env=env, check=False, stdout=subprocess.DEVNULL)
        print("\nstopped; the same command continues where this one was", file=sys.stderr)
        return 130
    finally:
        private.unlink(missing_ok=True)


def library_folder(text: str) -> Path:
    """The folder that LIBRARY names; make hands on a `~` as it was written. Raises UserError for no home."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise UserError(f"LIBRARY is {text!r}, and there is no such user: give a folder") from None


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m etude.services.local", description=__doc__)
    parser.add_argument("verb", choices=["up", "stop", "submit"])
    parser.add_argument("--library", action="store_true", help="add the folder that LIBRARY names, if any")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(argv)
    home = default_home().absolute()
    if chosen.verb == "submit":
        folder = os.environ.get("LIBRARY") if chosen.library else None
        library = ["--source.name", "folder", "--source.path", str(library_folder(folder))] if folder else []
        return submit(home, [*(word for word in chosen.words if word != "--"), *library])
    if chosen.verb == "stop":
        ended = [name for name in ("ray", "mlflow") if daemon.stop(home / "services", name)]
        print(f"ended: {', '.join(ended)}" if ended else "nothing was running")
        return 0
    env = up(home, Ports.from_environment())
    print(f"Ray dashboard  {env[DASHBOARD]}   token: {env['RAY_AUTH_TOKEN_PATH']}")
    print(f"MLflow         {env['MLFLOW_TRACKING_URI']}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
