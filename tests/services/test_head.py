"""A head that cannot be used is told in one sentence, long before Ray itself gives up."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.services import daemon, session
from etude.services.head import require_dashboard, require_head, require_token
from etude.services.local import Ports, ray_environment, ray_head

JOIN = """
import sys
from pathlib import Path
from etude.cli import guarded
from etude.services.session import connect
sys.exit(guarded(lambda argv: print("joined", connect(Path(argv[0]))) or 0)(sys.argv[1:]))
"""
ASK = """
import sys
import ray
from etude.cli import guarded
from etude.services.head import require_dashboard
ray.__version__ = sys.argv[2] or ray.__version__
sys.exit(guarded(lambda argv: print("runs", require_dashboard(argv[0])) or 0)(sys.argv[1:]))
"""
PATIENCE_S = 100.0  # a start of Python with Ray on a busy machine, and the seconds of the check


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """The home of a real head, its address and its dashboard's."""
    home = tmp_path_factory.mktemp("head")
    ports = Ports(ray=daemon.free_port(), dashboard=daemon.free_port())
    yield home, f"127.0.0.1:{ports.ray}", ray_head(home, ports, "http://127.0.0.1:1")
    daemon.stop(home / "services", "ray")


def run(code: str, *words: str, env: dict[str, str]) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=clean | env,
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).strip()


@pytest.mark.slow
def test_a_real_head_is_joined_or_one_sentence_says_why_not(
    head: tuple[Path, str, str], tmp_path: Path
) -> None:
    home, address, dashboard = head
    other = tmp_path / "token"
    other.write_text("0" * 64)
    right, wrong = ray_environment(home), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(other)}
    where = {"RAY_ADDRESS": address}

    assert run(JOIN, str(home), env=right | where) == (0, f"joined {dashboard}")
    for env, sentence in [({}, "wants a token and none was sent"), (wrong, "refuses the token")]:
        status, said = run(JOIN, str(home), env=env | where)
        assert (status, said.count("\n")) == (2, 0), said
        assert said.startswith(f"etude: the Ray head at {address} {sentence}")
        assert "0000" not in said
        status, said = run(ASK, dashboard, "", env=env)
        assert (status, said.count("\n")) == (2, 0), said
        assert sentence in said

    assert run(ASK, dashboard, "", env=right) == (0, "runs 2.60.0")
    for code, words in [
        (ASK, (dashboard, "2.59.0")),
        (f"import ray; ray.__version__ = '2.59.0'{JOIN}", (str(home),)),
    ]:
        status, said = run(code, *words, env=right | where)
        assert status == 2
        assert "runs Ray 2.60.0, here is 2.59.0: take the image rayproject/ray:2.59.0" in said


def test_an_address_at_which_nobody_answers_is_told_within_seconds() -> None:
    port = daemon.free_port()
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"no Ray head answers at 127\.0\.0\.1:{port} .*firewall"):
        require_head(f"127.0.0.1:{port}", timeout_s=2)
    with pytest.raises(UserError, match=r"no Ray dashboard answers .*refused.*`ray dashboard cluster\.yaml`"):
        require_dashboard(f"http://127.0.0.1:{port}", timeout_s=2)
    assert time.monotonic() - started < 60  # Ray itself tries for two minutes


def test_a_dashboard_is_no_address_of_a_head() -> None:
    with pytest.raises(UserError, match="ray job submit --address"):
        require_head("http://127.0.0.1:8265")


@pytest.mark.parametrize(
    "address",
    ["", "8265", "127.0.0.1:8265", "http://", "http://127.0.0.1:port", "http://[::1", "http://127.0.0.1:1/ x",
     "http://127.0.0.1:99999", "ray://127.0.0.1:10001", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_address_of_a_dashboard_is_told(address: str) -> None:
    with pytest.raises(UserError, match=r"is no dashboard's address: give http://HOST:8265"):
        require_dashboard(address)


def test_the_head_of_this_machine_is_asked_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a head that was killed Ray keeps the address, and would wait for it for more than a minute."""
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(session, "find_head", lambda: f"127.0.0.1:{daemon.free_port()}")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(UserError, match="no Ray head answers at 127"):
        session.connect(Path("/nonexistent"))


def test_a_token_that_is_asked_for_and_not_there_is_told() -> None:
    code = "from etude.services.head import require_token; require_token()"
    for path in ("/nonexistent/token", "/dev/null"):
        env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": path}
        status, said = run(code, env=env)
        assert status == 1
        assert "UserError: RAY_AUTH_MODE is token and there is no token to be read" in said
    require_token()  # the tests have one
