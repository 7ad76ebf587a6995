"""Servers outlive their starter, are found again, and only they are ended."""

import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from etude.errors import UserError
from etude.services import daemon
from etude.services.local import Ports, ray_environment

SERVE = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]


def start(folder: Path, port: int, command: list[str] | None = None) -> daemon.Daemon:
    url = f"http://127.0.0.1:{port}"
    return daemon.start(
        folder,
        "web",
        command or [*SERVE, str(port)],
        address=url,
        ports=[port],
        ready_urls=[url],
        env={},
        timeout_s=20,
    )


def test_started_found_and_stopped(tmp_path: Path) -> None:
    started = start(tmp_path, daemon.free_port())
    assert daemon.find(tmp_path, "web") == started
    assert daemon.find(tmp_path, "other") is None
    assert daemon.stop(tmp_path, "web")
    assert not psutil.pid_exists(started.pid)
    assert daemon.find(tmp_path, "web") is None
    assert not daemon.stop(tmp_path, "web")


def test_an_occupied_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}, which web needs, is taken .* MLFLOW_PORT"):
            start(tmp_path, port)
    assert not (tmp_path / "web.json").exists()


def test_a_free_port_is_one_that_nothing_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", daemon.free_port()))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(daemon, "PORTS", range(port - 20, port + 1))
        assert port not in {daemon.free_port() for _ in range(60)}
        monkeypatch.setattr(daemon, "PORTS", range(port, port + 1))
        with pytest.raises(UserError, match=f"no port from {port} to {port} is free"):
            daemon.free_port()


def test_a_server_that_dies_at_once_points_to_its_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ended at once .*web\.log"):
        start(tmp_path, daemon.free_port(), [sys.executable, "-c", "raise SystemExit('no database')"])
    assert "no database" in (tmp_path / "web.log").read_text()
    assert daemon.find(tmp_path, "web") is None


def test_another_process_with_the_same_id_is_left_alone(tmp_path: Path) -> None:
    """After a reboot the id in the file may belong to anyone."""
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        text = f'{{"name": "web", "pid": {stranger.pid}, "created": 1.0, "address": "", "ports": []}}'
        (tmp_path / "web.json").write_text(text)
        assert daemon.find(tmp_path, "web") is None
        assert not daemon.stop(tmp_path, "web")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = ray_environment(tmp_path)
    assert first == ray_environment(tmp_path)
    path = Path(first["RAY_AUTH_TOKEN_PATH"])
    assert len(path.read_text()) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert first["RAY_AUTH_MODE"] == "token"


def test_ports_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_PORT", "5999")
    monkeypatch.setenv("RAY_PORT", "")
    assert Ports.from_environment() == Ports(mlflow=5999)
    monkeypatch.setenv("DASHBOARD_PORT", "high")
    with pytest.raises(UserError, match="DASHBOARD_PORT is 'high'"):
        Ports.from_environment()


def test_commands_at_the_same_time_start_one_server_and_wait_until_it_answers(tmp_path: Path) -> None:
    def ask(_: int) -> tuple[daemon.Daemon, int]:
        server = daemon.ensure(tmp_path, "web", lambda: start(tmp_path, daemon.free_port()))
        with urllib.request.urlopen(server.address, timeout=5) as answer:
            return server, answer.status

    try:
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(ask, range(3)))
    finally:
        daemon.stop(tmp_path, "web")
    assert len({server.pid for server, _ in answers}) == 1
    assert {status for _, status in answers} == {200}
