"""What an experiment needs, looked at one by one: each is well, in trouble with the way out, or not used."""

import asyncio
import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import av
import pyarrow.compute as pc
import torch
from pydantic import Field

from etude.data.store import Store, features_part
from etude.errors import BadAudio, UserError
from etude.experiments.audio import AudioExperiment
from etude.services import daemon
from etude.services.findings import Finding, NotUsed
from etude.services.local import ray_environment
from etude.sources import DemoConfig, build_source
from etude.sources.audiomuse import AudioMuseConfig
from etude.sources.audiomuse_coverage import coverage
from etude.teachers import build_teacher
from etude.teachers.stored import StoredConfig, StoredTeacher
from etude.teachers.stored_evidence import agreement, evidence

DECODERS = ("aac", "alac", "flac", "mp3", "opus", "vorbis", "wmav2")
ROOM_BYTES = 2e9  # less free disk than this is a problem for any library
PAGE = 20  # tracks that are listed
SAMPLE = 8  # tracks that a CLAP file is compared on
TIMEOUT_S = 5.0


class Doctor(AudioExperiment):
    """Check what an experiment needs. Files: --config FILE.yaml. Environment: ETUDE_SOURCE__DSN=..."""

    learns: ClassVar[bool] = False

    clap: Path | None = Field(None, description="a CLAP ONNX file to compare AudioMuse-AI's vectors with")
    coverage: bool = Field(False, description="list AudioMuse-AI's rows and the audio whole, and compare")


def examine(settings: Doctor) -> Iterator[Finding]:
    """Check one thing after the other; no check writes into the store or starts a server."""
    for name, check in CHECKS.items():
        try:
            yield Finding(name, "ok", check(settings))
        except NotUsed as reason:
            yield Finding(name, "not used", str(reason))
        except (UserError, BadAudio, OSError) as error:
            yield Finding(name, "problem", str(error))


def python(settings: Doctor) -> str:
    """The interpreter that the packages are pinned for."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] != (3, 11):
        raise UserError(f"Python {version} runs, 3.11 is needed: make PYTHON=python3.11")
    return version


def decoding(settings: Doctor) -> str:
    """FFmpeg's libraries, as PyAV brings them."""
    missing = [name for name in DECODERS if name not in av.codecs_available]
    if missing:
        raise UserError(
            f"PyAV {av.__version__} came without decoders for {', '.join(missing)}: "
            "pip install --force-reinstall --only-binary av -c constraints.txt av"
        )
    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"


def gpu(settings: Doctor) -> str:
    """Whether PyTorch sees a GPU where there is one, or where the settings ask for one."""
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return f"torch {torch.__version__}, {names}"
    if settings.prepare.gpus_per_actor:
        raise UserError("prepare.gpus_per_actor asks for a GPU and torch finds none: set it to 0")
    if Path("/proc/driver/nvidia/version").exists():
        raise UserError(
            f"there is an NVIDIA driver that torch {torch.__version__} cannot use: update the driver, or "
            "install a torch for it with pip install --force-reinstall torch==2.13.0"
        )
    raise NotUsed(f"torch {torch.__version__} finds no GPU; all runs on the CPU")


def ray(settings: Doctor) -> str:
    """The cluster that jobs would join, and whether it takes this home's token."""
    if address := os.environ.get("RAY_ADDRESS"):
        place = urlsplit(address if "://" in address else f"//{address}")
        if not place.hostname or not place.port:
            raise NotUsed(f"RAY_ADDRESS is {address}, which Ray resolves by itself")
        _connect(place.hostname, place.port, f"no Ray answers at {address}: start it, or unset RAY_ADDRESS")
        return f"RAY_ADDRESS, {address}, answers"
    head = daemon.find(settings.home / "services", "ray")
    if head is None:
        raise NotUsed("no head runs; a job starts one that ends with it, `make up` one that stays")
    again = "end it and start it anew with make stop, make up"
    _connect("127.0.0.1", head.ports[0], f"the Ray head (process {head.pid}) takes no connections: {again}")
    token = Path(ray_environment(settings.home)["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
    url = f"{head.address}/api/version"
    status = _get(url, f"the dashboard {head.address} does not answer: {again}", f"Bearer {token}")
    if status != 200:
        raise UserError(f"the Ray head refuses this home's token (status {status}): {again}")
    return f"{head.address} takes this home's token"


def mlflow(settings: Doctor) -> str:
    """The MLflow server that jobs would use."""
    running = daemon.find(settings.home / "services", "mlflow")
    uri = settings.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or (running and running.address)
    if not uri:
        raise NotUsed("no server runs; a job starts one over this home's database, as does `make up`")
    if not uri.startswith(("http://", "https://")):
        raise NotUsed(f"{uri} is no server's address and is not checked")
    mend = "start it with `make up`, or set tracking.uri"
    status = _get(f"{uri.rstrip('/')}/health", f"no MLflow server answers at {uri}: {mend}")
    if status != 200:
        raise UserError(f"{uri} answers with status {status}, not as an MLflow server does: {mend}")
    return f"{uri} answers"


def disk(settings: Doctor) -> str:
    """Room and the right to write where everything is put."""
    home = settings.home
    folder = next(path for path in (home, *home.parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"no right to write in {folder}: allow it, or choose another folder with --home")
    free = shutil.disk_usage(folder).free
    if free < ROOM_BYTES:
        raise UserError(
            f"{home} has {free / 1e9:.1f} GB free: make room, or choose another folder with --home"
        )
    return f"{free / 1e9:.0f} GB free in {home}"


def store(settings: Doctor) -> str:
    """What was prepared with this recipe."""
    opened = Store(settings.store.root)
    if opened.format is None:
        raise NotUsed(f"nothing is prepared in {opened.root} yet: python jobs/prepare_audio.py")
    features = pc.count_distinct(opened.commits(features_part(settings.recipe))["track_id"]).as_py()
    bad = len(opened.quarantined(settings.recipe.id))
    return f"format {opened.format}, {features} tracks prepared with this recipe, {bad} in quarantine"


def teacher(settings: Doctor) -> str:
    """The teacher's files against their pinned hashes, or the vectors that stand for it."""
    return build_teacher(settings.pinned().teacher).id


def source(settings: Doctor) -> str:
    """The beginning of the listing, and whether the first file can be had."""
    listed = build_source(settings.source, settings.cache)
    tracks = list(islice(listed.tracks(), PAGE))
    if not tracks:
        raise UserError(f"{listed.id} has no tracks: choose another library")
    text = f"{listed.id} lists tracks, the first is {tracks[0].title!r}"
    if isinstance(settings.source, DemoConfig):  # nothing to fetch: it is rendered when it is needed
        return text

    async def fetch() -> int:
        try:
            return len(await listed.fetch(tracks[0]))
        finally:
            await listed.aclose()

    return f"{text}, fetched with {asyncio.run(fetch()) / 1e6:.1f} MB"


def database(settings: Doctor) -> str:
    """What speaks for one or the other origin of AudioMuse-AI's vectors."""
    candidates: list[object] = [settings.source, settings.teacher]
    users = [one for one in candidates if isinstance(one, AudioMuseConfig | StoredConfig)]
    dsn = next((one.dsn for one in users if one.dsn), None)
    if dsn is None:
        raise NotUsed("neither the source nor the teacher is AudioMuse-AI's database")
    said = evidence(dsn)
    if isinstance(settings.source, AudioMuseConfig):
        if settings.coverage:
            said += coverage(settings.source, settings.cache)
        if settings.clap:
            said += _compared(settings, settings.clap, settings.source)
    return "\n".join(said)


def captions(settings: Doctor) -> str:
    """The key of the service that writes captions; its value is never shown."""
    if not os.environ.get("OPENAI_API_KEY"):
        raise NotUsed("OPENAI_API_KEY is not set; only writing captions needs it: put it into .env")
    return "OPENAI_API_KEY is set"


CHECKS: dict[str, Callable[[Doctor], str]] = {
    "python": python,
    "decoding": decoding,
    "gpu": gpu,
    "ray": ray,
    "mlflow": mlflow,
    "disk": disk,
    "store": store,
    "teacher": teacher,
    "source": source,
    "database": database,
    "captions": captions,
}


def _compared(settings: Doctor, clap: Path, config: AudioMuseConfig) -> list[str]:
    stored = StoredTeacher(StoredConfig(dsn=config.dsn, provenance="clap_htsat", version="unnamed"))
    listed = build_source(settings.source, settings.cache)

    async def compare() -> list[str]:
        try:
            found = await agreement(stored, clap, listed, list(islice(listed.tracks(), SAMPLE)))
        finally:
            stored.close()
            await listed.aclose()
        return [f"{clap.name}, {one}" for one in found]

    return asyncio.run(compare())


def _connect(host: str, port: int, otherwise: str) -> None:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except OSError as error:
        raise UserError(f"{otherwise} ({error.strerror or error})") from None


def _get(url: str, otherwise: str, authorization: str | None = None) -> int:
    """The status with which an address answers. Raises UserError if it does not."""
    headers = {"Authorization": authorization} if authorization else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UserError(f"{otherwise} ({reason})") from None
