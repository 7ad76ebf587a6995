"""The local head and its jobs: on the loopback only, and nothing private in what Ray shows of a job."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from etude.config import keys
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.services import daemon
from etude.services.local import SECRETS, Ports, library_folder, ray_head, submit, up


def test_a_library_is_the_folder_that_the_users_shell_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert library_folder("~/My Music") == Path("/home/somebody/My Music")
    with pytest.raises(UserError, match="there is no such user"):
        library_folder("~nobody-of-this-name/Music")


def test_a_secret_on_the_command_line_is_refused_before_anybody_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {key.split(".")[-1] for key in keys(AudioExperiment, secret=True)} == SECRETS
    monkeypatch.setattr(daemon, "find", lambda *_: daemon.Daemon("ray", 1, 0.0, "http://127.0.0.1:1", (1,)))
    for words in (["--source.token", "hunter2"], ["--source.audio.password=hunter2"]):
        with pytest.raises(UserError, match=r"put it into \.env as ETUDE_SOURCE__") as caught:
            submit(tmp_path, ["python", "job.py", *words])
        assert "hunter2" not in str(caught.value)


def test_a_folder_that_another_user_has_taken_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    another = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another)
    with pytest.raises(UserError, match=rf"{tmp_path}/etude-{another}-\w+ belongs to another user"):
        ray_head(tmp_path / "home", Ports(*(daemon.free_port() for _ in range(3))), "http://127.0.0.1:1")


@pytest.mark.slow
def test_a_head_takes_jobs_and_only_from_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("ETUDE_SOURCE__TOKEN", "hunter2")
    script = tmp_path / "job.py"
    script.write_text(
        "import os, pathlib\n"
        "private = pathlib.Path(os.environ['ETUDE_PRIVATE_ENVIRONMENT'])\n"
        "print('mode', oct(private.stat().st_mode & 0o777), 'knows', 'hunter2' in private.read_text())\n"
        "print('shown', 'hunter2' in str(os.environ))\n"
        "print('head', os.environ['RAY_ADDRESS'])\n"
        "raise SystemExit(3)\n"
    )
    ports = Ports(*(daemon.free_port() for _ in range(3)))
    other = tmp_path / "other"
    try:
        up(home, ports)
        ray_head(other, Ports(*(daemon.free_port() for _ in range(3))), "http://127.0.0.1:1")
        head = daemon.find(home / "services", "ray")
        assert head is not None
        listening = set()
        for process in [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                listening |= {c.laddr for c in process.net_connections("tcp") if c.status == "LISTEN"}
        assert {address.port for address in listening} >= {ports.ray, ports.dashboard}
        assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
        assert submit(home, [sys.executable, str(script)]) != 0
        said = capfd.readouterr().out
        assert "mode 0o600 knows True" in said
        assert "shown False" in said
        assert f"head 127.0.0.1:{ports.ray}" in said  # and not the machine's newest
        assert not list((home / "services").glob("*.env"))
        line = psutil.Process(head.pid).cmdline()
        folder = Path(line[line.index("--temp-dir") + 1])
        assert list(folder.glob("session_*/logs/job-driver-*.log"))  # which Ray lets everybody read
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        written = [p for p in home.rglob("*") if p.is_file()]
        assert not [path for path in written if b"hunter2" in path.read_bytes()]
    finally:
        for name, at in (("ray", home), ("mlflow", home), ("ray", other)):
            daemon.stop(at / "services", name)
    assert os.environ["ETUDE_SOURCE__TOKEN"] == "hunter2"
