"""supysonic, a real Subsonic server, over a real socket: its own database, one user, folders of music.

python -m tests.support.subsonic_server PORT STATE FOLDER...      serves until it is ended
"""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etude.services.daemon import free_port

USER = "alice"
PASSWORD = "5ecret password of älice"


@contextmanager
def subsonic_server(state: Path, *folders: Path) -> Iterator[int]:
    """The port of a server that has scanned these folders; it ends with the block. `state` must be new."""
    port = free_port()
    state.mkdir(parents=True)
    with open(state / "log", "wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.subsonic_server",
                str(port),
                str(state),
                *map(str, folders),
            ],
            cwd=Path(__file__).resolve().parents[2],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(process, port, state / "log")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/rest/ping.view", timeout=1).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, if only to refuse
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"supysonic did not start: {log.read_text()}")


def _serve(port: int, state: Path, folders: list[Path]) -> None:
    from supysonic import config
    from supysonic.db import close_connection, open_connection
    from supysonic.managers.folder import FolderManager
    from supysonic.managers.user import UserManager
    from supysonic.scanner import Scanner
    from supysonic.web import create_application
    from werkzeug.serving import make_server

    settings = config.DefaultConfig()
    settings.BASE = {**settings.BASE, "database_uri": f"sqlite:///{state}/supysonic.db"}
    settings.WEBAPP = {**settings.WEBAPP, "cache_dir": str(state), "mount_webui": False}
    settings.DAEMON = {**settings.DAEMON, "socket": str(state / "no-daemon")}
    config.current_config = settings
    app = create_application(settings)
    open_connection()
    UserManager.add(USER, PASSWORD, mail="", admin=True)
    scanner = Scanner()
    for folder in folders:
        FolderManager.add(folder.name, str(folder))
        scanner.queue_folder(folder.name)
    scanner.run()
    close_connection()
    make_server("127.0.0.1", port, app, threaded=True).serve_forever()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]])
