"""A self-hoster's whole way: AudioMuse-AI's database and a media server in, vectors written back, undone."""

import asyncio
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
import soundfile

from etude.audio.decode import decode
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.config import save
from etude.data.prepare import prepare
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import prepare_job
from etude.export.audio import AudioRelease
from etude.export.publish import publish
from etude.inference.library import Limits, embed_library
from etude.inference.student import Student
from etude.inference.vectors import VectorFolder
from etude.inference.write_back import plan_write, rollback, write
from etude.sources import AudioMuseConfig, JellyfinConfig, SubsonicConfig, Track, build_source
from etude.sources.subsonic import SubsonicSource
from etude.students import StudentConfig
from etude.teachers import MusiCNNConfig, StoredConfig, build_teacher
from etude.tracking.mlflow import Tracking
from etude.training.loop import TrainingConfig, train
from tests.support import audiomuse_db, jellyfin_server, subsonic_server
from tests.support.audiomuse_db import Analysed, Database, audiomuse_database

SECRETS = (audiomuse_db.PASSWORD, jellyfin_server.API_KEY, subsonic_server.PASSWORD)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pieces(demo: AudioExperiment) -> dict[str, bytes]:
    """Nine pieces of real music as FLAC files, by title."""
    source = build_source(demo.source, demo.cache)
    return {track.title: asyncio.run(source.fetch(track)) for track in source.tracks()}


def analysed(item_id: str, title: str, data: bytes, **more: object) -> Analysed:
    """A row with the real MusiCNN vector of the file, as AudioMuse-AI averages it."""
    audio = decode(data)
    recipe = FeatureRecipe()
    segments = segments_of(len(audio.resampled(recipe.sample_rate)), recipe)

    vector = build_teacher(MusiCNNConfig()).embed(audio, segments, Track("", "", "")).track
    return Analysed(item_id, title=title, musicnn=vector.astype("<f4").tobytes(), **more)  # type: ignore[arg-type]


@contextmanager
def on_jellyfin(pieces: dict[str, bytes], folder: Path) -> Iterator[tuple[JellyfinConfig, Database]]:
    """The schema of December 2025: an item's id is Jellyfin's own."""
    ids = {title: f"{number:032x}" for number, title in enumerate(pieces, start=1)}
    songs = [jellyfin_server.Song(ids[title], data, title=title) for title, data in pieces.items()]
    with jellyfin_server.jellyfin_stub(songs) as server:
        config = JellyfinConfig.model_validate({"url": server.url, "token": jellyfin_server.API_KEY})
        rows = [analysed(ids[title], title, data) for title, data in pieces.items()]
        yield config, audiomuse_database("december 2025", rows)


@contextmanager
def on_subsonic(pieces: dict[str, bytes], folder: Path) -> Iterator[tuple[SubsonicConfig, Database]]:
    """The current schema: fingerprints, mapped to the ids of a real Subsonic server."""
    music = folder / "served"
    music.mkdir()
    for title, data in pieces.items():
        samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
        with soundfile.SoundFile(
            music / f"{len(list(music.iterdir()))}.flac", "w", rate, samples.shape[1]
        ) as file:
            file.title = title
            file.write(samples)
    with subsonic_server.subsonic_server(folder / "state", music) as port:
        given = {"url": f"http://127.0.0.1:{port}", "user": subsonic_server.USER, "plain_password": True}
        config = SubsonicConfig.model_validate(given | {"password": subsonic_server.PASSWORD})
        listed = {track.title: track for track in SubsonicSource(config, None).tracks()}
        assert set(listed) == set(pieces)
        rows = [
            analysed(
                f"fp_1{number:050x}", title, data, duration=11.0,
                provider_ids={"home": [listed[title].uri.rsplit("/", 1)[-1]]},
            )
            for number, (title, data) in enumerate(pieces.items())
        ]  # fmt: skip
        yield config, audiomuse_database("current", rows, server_type="navidrome")


@pytest.mark.parametrize("serve", [on_jellyfin, on_subsonic])
def test_from_a_database_and_a_server_to_vectors_and_back(
    serve, pieces, ray_session, mlflow_uri, tmp_path, caplog, capfd, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    caplog.set_level(logging.DEBUG)
    with serve(pieces, tmp_path) as (audio, database):
        home = tmp_path / "home"
        settings = AudioExperiment(
            home=home,
            source=AudioMuseConfig.model_validate({"dsn": database.dsn, "audio": audio}),
            teacher=StoredConfig(table="embedding"),
            student=StudentConfig(name="convnet", width=0.1, frame_stride=4),
            training=TrainingConfig(epochs=2, batch_size=4),
        ).pinned()
        report = prepare(prepare_job(settings), lambda done, total, seconds: None)
        assert (report.prepared, report.total) == (len(pieces), len(pieces))

        study = settings.open()
        splits = study.splits
        losses: list[float] = []
        train(
            study.system(seed=0), study, settings.training, seed=0, folder=home / "run",
            report=lambda metrics, path: losses.append(metrics["train/loss"]),
            identity=study.identity(),
        )  # fmt: skip
        assert losses[1] < losses[0]
        tracking = Tracking(mlflow_uri, f"library-{serve.__name__}")
        run_id = tracking.run("run", "run")
        tracking.log_params(run_id, settings.model_dump())
        published = publish(AudioRelease(study), home / "run" / "best.pt", tracking, run_id, home / "out", {})
        save(settings, home / "winner.yaml")

        # A new vector makes all targets new, and none of them needs the audio again.
        (some,) = database.execute("SELECT item_id FROM embedding ORDER BY 1 LIMIT 1")[0]
        database.execute("UPDATE embedding SET embedding = %s WHERE item_id = %s", [b"\0" * 799, some])
        changed = settings.model_copy(update={"teacher": StoredConfig(table="embedding")}).pinned()
        monkeypatch.setattr("etude.data.prepare._rows", lambda *_: pytest.fail("audio was asked for"))
        again = prepare(prepare_job(changed), lambda done, total, seconds: None)
        assert (again.prepared, len(again.quarantined)) == (len(pieces) - 1, 1)
        assert again.quarantined[0].reason == "its stored vector has 799 bytes instead of 800"
        assert changed.open().teacher.id != study.teacher.id
        known = {row.track.id: row for row in (*splits.train, *splits.validation, *splits.test)}
        renewed = changed.open().splits
        for row in (*renewed.train, *renewed.validation, *renewed.test):
            np.testing.assert_array_equal(row.segment_targets, known[row.track.id].segment_targets)

        before = database.contents()
        student = Student(published.files[1], 3.5, -60.0)
        source = build_source(settings.source, settings.cache)
        folder = VectorFolder(home / "vectors", student.hash, student.dim)
        embedded = embed_library(
            source, list(source.tracks()), student, folder, Limits(2, 4), lambda *counts: None
        )
        assert embedded.embedded == len(pieces)
        assert plan_write(settings.source.dsn, "embedding", folder).replaced == len(pieces)
        assert database.contents() == before
        assert write(settings.source.dsn, "embedding", folder).replaced == len(pieces)
        assert database.contents() != before
        assert rollback(settings.source.dsn, "embedding").restored == len(pieces)
        assert database.contents() == before

    logs = Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1] / "logs"
    mlflow_home = next(parent for parent in (tmp_path, *tmp_path.parents) if list(parent.glob("etude-home*")))
    places = [home, logs, *mlflow_home.glob("etude-home*")]
    written = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert len(written) > 50
    said = "".join(capfd.readouterr()) + caplog.text
    for secret in SECRETS:
        assert secret not in said
        assert not [path for path in written if secret.encode() in path.read_bytes()]
