"""Real music and real servers for every test, made once a session."""

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

# Ray reads its authentication when it is imported, and a head that someone runs here must not be joined.
_token = Path(tempfile.mkdtemp(prefix="etude-test-")) / "token"
_token.write_text(secrets.token_hex(32))
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": str(_token),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on the loopback only
    "ETUDE_HOME": "/nonexistent",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # as services/local.py has it
}
for _name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
    os.environ.pop(_name, None)
if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores have tests of their own
    os.environ["OMP_NUM_THREADS"] = "1"
# What a shell runs in the background ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

import botocore.endpoint
import hypothesis
import midirenderer
import pytest
import ray
from music21 import corpus

from etude.config import load
from etude.data.prepare import prepare
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import prepare_job
from etude.services import daemon
from etude.services.local import mlflow_server
from tests.support.s3_server import ENVIRONMENT, s3_server

hypothesis.settings.register_profile("any machine", deadline=None)  # however busy it is
hypothesis.settings.load_profile("any machine")
REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def chorale_wav(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """BWV 66.6 as a WAV file: 23 s, stereo, 48 kHz, 16 bits, peak 0.14."""
    midi = tmp_path_factory.mktemp("chorale") / "bwv66.6.mid"
    corpus.parse("bach/bwv66.6").write("midi", fp=midi)
    # Its file is wanted, not the package, whose import needs more packages.
    soundfont = Path(str(distribution("pretty_midi").locate_file("pretty_midi/TimGM6mb.sf2")))
    return bytes(midirenderer.render_wave_from(soundfont.read_bytes(), midi.read_bytes()))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of its own for everything that tests leave behind."""
    return tmp_path_factory.mktemp("etude-home")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray with two CPUs, a token of its own, and this repository on the workers' path."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=300_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'platform'}"}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def mlflow_uri(home: Path) -> Iterator[str]:
    """A real MLflow server over SQLite on a free port."""
    from mlflow.tracking import MlflowClient  # slow to import: only who uses it waits for it

    try:
        uri = mlflow_server(home, daemon.free_port())
        MlflowClient(uri).search_experiments()  # the first question, for which it opens its database
        yield uri
    finally:
        daemon.stop(home / "services", "mlflow")


@pytest.fixture(scope="session")
def demo(home: Path, ray_session: None) -> AudioExperiment:
    """Nine pieces of the demo library, 11 s each, prepared by the real pipeline with the real teacher."""
    settings = load(
        AudioExperiment,
        [
            "--home",
            str(home),
            "--source.pieces",
            "9",
            "--source.max_duration_s",
            "11",
            "--prepare.shard_tracks",
            "4",
        ],
    )
    report = prepare(prepare_job(settings), lambda done, total, seconds: None)
    assert report.prepared == 9, report
    return settings


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of a real server of the S3 protocol with one bucket; credentials are in the environment."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in ENVIRONMENT.items():
            patched.setenv(name, value)
        with s3_server() as port:
            yield port


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of boto3 before it asks S3 again, which are told here and made short."""
    slept: list[float] = []

    def short(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(0.005)

    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=short))
    return slept
