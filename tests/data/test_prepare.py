"""The pipeline prepares what can be prepared, explains the rest, and never does anything twice."""

import asyncio
import errno
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile
import soxr
from pydantic import SecretStr

from etude.audio.decode import Audio, decode
from etude.audio.mel import log_mel
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import Segments, segments_of
from etude.audio.waveform import prepare_waveform
from etude.data.batches import open_splits
from etude.data.features import Featurize
from etude.data.fetch import Fetch
from etude.data.plan import Job, PrepareConfig, plan
from etude.data.prepare import BLOCK_S, BLOCK_TRACKS, MAX_BLOCKS, PrepareReport, _blocks, prepare
from etude.data.split import SplitConfig
from etude.data.store import Quarantined, Store, features_part, targets_part
from etude.errors import BadAudio, OutOfReach, UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.library import prepare_job
from etude.sources import AudioMuseConfig, FolderConfig, SourceConfig, build_source
from etude.sources.base import Source, Track
from etude.summary import prepare_summary
from etude.teachers import MusiCNNConfig, StoredConfig, Targets, build_teacher
from etude.teachers.musicnn import MusiCNN
from tests.support.audiomuse_db import Analysed, audiomuse_database, vector_bytes

MSD, MTT = MusiCNNConfig(), MusiCNNConfig(name="mtt_musicnn")


def quiet(done: int, total: int, seconds: float) -> None:
    pass


def encode(samples: np.ndarray, container: str, codec: str) -> bytes:
    """Samples [n] at 48 kHz as a file made by FFmpeg."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=48_000, frame_size=stream.frame_size
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def source_of(job: Job) -> Source:
    return build_source(job.source, job.cache)


def ids_of(job: Job) -> dict[str, str]:
    """The database's id of every track, by Étude's."""
    return {track.id: track.tags["item_id"] for track in source_of(job).tracks()}


@pytest.fixture(scope="module")
def music(chorale_wav: bytes) -> np.ndarray:
    samples, _ = soundfile.read(io.BytesIO(chorale_wav), dtype="float32", always_2d=True)
    return samples[:, 0] * 5


@pytest.fixture()
def library(tmp_path: Path, music: np.ndarray) -> Path:
    """Three good tracks in three formats and four that are at fault, each in another way."""
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "a.mp3").write_bytes(encode(music[: 48_000 * 12], "mp3", "libmp3lame"))
    (folder / "b.flac").write_bytes(encode(music[48_000 * 5 : 48_000 * 20], "flac", "flac"))
    (folder / "c.opus").write_bytes(encode(music[48_000 * 3 : 48_000 * 14], "ogg", "libopus"))
    whole = encode(music, "flac", "flac")
    (folder / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp3").write_text("This is not music. " * 200)
    (folder / "empty.ogg").write_bytes(b"")
    soundfile.write(folder / "silence.wav", np.zeros(24_000), 48_000)
    return folder


def job_for(home: Path, folder: Path, **prepare_options: object) -> Job:
    base = prepare_job(AudioExperiment(home=home, source=FolderConfig(name="folder", path=folder)))
    chosen = PrepareConfig(shard_tracks=2, **prepare_options)
    return replace(base, teachers=(*base.teachers, *chosen.also), prepare=chosen)


@pytest.mark.slow
def test_bad_files_are_explained_and_cost_no_other(ray_session: None, tmp_path: Path, library: Path) -> None:
    seen: list[tuple[int, int]] = []
    job = job_for(tmp_path / "home", library)
    report = prepare(job, lambda done, total, seconds: seen.append((done, total)))
    assert (report.prepared, report.total, len(report.unreachable)) == (3, 7, 0)
    reasons = {Path(row.uri).name: row.reason for row in report.quarantined}
    assert set(reasons) == {"truncated.flac", "text.mp3", "empty.ogg", "silence.wav"}
    assert "truncated" in reasons["truncated.flac"]
    assert "empty" in reasons["empty.ogg"]
    assert all(len(reason) > 10 and "\n" not in reason for reason in reasons.values())
    assert seen[0] == (0, 7)
    assert seen[-1] == (7, 7)

    # Again: everything is there, and what is in quarantine stays explained.
    again = prepare(job, quiet)
    assert (again.found, again.prepared) == (3, 0)
    assert {row.track_id for row in again.quarantined} == {row.track_id for row in report.quarantined}

    # Asked to, it tries them once more, and counts.
    tried = prepare(replace(job, prepare=PrepareConfig(shard_tracks=2, retry_quarantined=True)), quiet)
    assert {row.attempts for row in tried.quarantined} == {2}

    # A file that was mended is a new track.
    (library / "empty.ogg").write_bytes((library / "c.opus").read_bytes())
    mended = prepare(job, quiet)
    assert (mended.found, mended.prepared, len(mended.quarantined)) == (3, 1, 3)


@pytest.mark.slow
def test_a_library_without_a_usable_track_is_refused(ray_session: None, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "a.mp3").write_text("no music")
    with pytest.raises(UserError, match=r"none of the 1 tracks is usable .*a\.mp3"):
        prepare(job_for(tmp_path / "home", folder), quiet)


def test_only_what_is_missing_is_done(demo: AudioExperiment) -> None:
    job = prepare_job(demo)
    store = Store(job.store)
    part = features_part(job.recipe)
    folder = Path(store.root) / part
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    targets = targets_part(build_teacher(job.teachers[0]).id, job.recipe)
    lost = sorted((Path(store.root) / "commits" / targets).iterdir())[0]
    n_lost = len(json.loads(lost.read_text())["tracks"])
    lost.unlink()
    planned = plan(job)
    assert (planned.need_features.sum(), planned.need_targets.sum()) == (0, n_lost)
    assert prepare(job, quiet).prepared == n_lost
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    late = prepare(job, quiet, planned)  # as one planned before the other was done
    assert (late.prepared, late.found) == (0, 9)


@pytest.mark.slow
def test_a_second_teacher_adds_files_and_rewrites_none(demo: AudioExperiment) -> None:
    job = prepare_job(demo)
    root = Path(job.store)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.arrow")}
    other = replace(job, teachers=(MTT,))
    assert prepare(other, quiet).prepared == 9
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*.arrow")}
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(root).parts[1] for path in set(after) - set(before)} == {"mtt_musicnn-041f3935"}


def rows_of(job: Job, part: str) -> dict[str, dict[str, Any]]:
    """Everything that a part of the store holds, by track."""
    store = Store(job.store)
    shards = [store.read_shard(part, name) for name in set(store.commits(part)["shard"].to_pylist())]
    return {row["track_id"]: row for shard in shards for row in shard.to_pylist()}


@pytest.mark.slow
def test_one_fetch_of_a_track_feeds_every_teacher(
    ray_session: None, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Logged(Fetch):
        """Writes down what it fetches, from whichever process it does."""

        def __init__(self, source: SourceConfig, cache: Path, attempts: int, concurrency: int) -> None:
            super().__init__(source, cache, attempts, concurrency)
            self.cache = cache

        async def _fetch(self, row: dict[str, Any]) -> dict[str, Any]:
            with (self.cache.parent / "fetched").open("a") as log:
                log.write(row["track_id"] + "\n")
            return await super()._fetch(row)

    monkeypatch.setattr("etude.data.prepare.Fetch", Logged)
    one = job_for(tmp_path / "one", library)
    both = job_for(tmp_path / "both", library, also=(MTT,))
    ids = [build_teacher(teacher).id for teacher in (MSD, MTT)]
    parts = [features_part(one.recipe), *(targets_part(teacher_id, one.recipe) for teacher_id in ids)]
    together, alone = prepare(both, quiet), prepare(one, quiet)
    fetched = (tmp_path / "both" / "fetched").read_text().split()
    assert sorted(fetched) == sorted(track.id for track in build_source(one.source, one.cache).tracks())
    assert (together.prepared, len(together.quarantined), together.also_quarantined) == (3, 4, [])
    assert {row.track_id for row in together.quarantined} == {row.track_id for row in alone.quarantined}
    for part in parts[:2]:
        assert rows_of(both, part) == rows_of(one, part)

    # A teacher that comes later hears the audio once more, and what was there stays as it is.
    files = {path: path.stat().st_mtime_ns for path in Path(one.store).rglob("*.arrow")}
    (tmp_path / "one" / "fetched").unlink()
    later = prepare(replace(one, teachers=both.teachers), quiet)
    assert (later.prepared, later.found, len(later.quarantined)) == (3, 0, 4)
    assert len((tmp_path / "one" / "fetched").read_text().split()) == 3
    assert rows_of(one, parts[2]) == rows_of(both, parts[2])
    after = {path: path.stat().st_mtime_ns for path in Path(one.store).rglob("*.arrow")}
    assert {path: after[path] for path in files if "tracks" not in path.parts} == {
        path: files[path] for path in files if "tracks" not in path.parts
    }
    assert {path.relative_to(one.store).parts[1] for path in set(after) - set(files)} == {ids[1]}
    assert prepare(both, quiet).found == 3


@pytest.mark.slow
@pytest.mark.parametrize("first", ["musicnn", "stored"])
def test_what_one_teacher_cannot_use_is_told_and_kept_from_no_other(
    ray_session: None, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    zero, good = np.zeros(200, "<f4").tobytes(), vector_bytes(1, 200)
    names = {"a": ("a.mp3", good), "b": ("b.flac", zero), "c": ("c.opus", good), "d": ("text.mp3", good)}
    rows = [
        Analysed(item_id, file_path=name, provider_ids={"home": [item_id]}, musicnn=vector)
        for item_id, (name, vector) in names.items()
    ]
    database = audiomuse_database("current", rows)
    settings = AudioExperiment(
        home=tmp_path / "home",
        source=AudioMuseConfig(dsn=SecretStr(database.dsn), audio=FolderConfig(path=library)),
        teacher=MSD if first == "musicnn" else StoredConfig(table="embedding"),
        prepare=PrepareConfig(also=(StoredConfig(table="embedding") if first == "musicnn" else MSD,)),
    ).pinned()
    job = prepare_job(settings)
    report = prepare(job, quiet)
    by_teacher = {
        build_teacher(one).id.split("-")[0]: targets_part(build_teacher(one).id, job.recipe)
        for one in job.teachers
    }
    uris = {item_id: track_id for track_id, item_id in ids_of(job).items()}
    heard = {uris[item_id] for item_id in "abc"}
    assert set(rows_of(job, features_part(job.recipe))) == heard
    assert set(rows_of(job, by_teacher["msd_musicnn"])) == heard
    assert set(rows_of(job, by_teacher["stored"])) == heard - {uris["b"]}

    stored_id = by_teacher["stored"].split("/")[1]
    for again in (report, prepare(job, quiet)):
        prepared = again.prepared + again.found
        bad = {row.track_id: row.reason for row in again.quarantined}
        also = {row.track_id: row.reason for row in again.also_quarantined}
        if first == "musicnn":
            assert (prepared, set(bad)) == (3, {uris["d"]})
            assert also == {uris["b"]: f"{stored_id}: its stored vector is zero"}
        else:
            assert (prepared, set(bad), also) == (2, {uris["b"], uris["d"]}, {})
            assert bad[uris["b"]] == "its stored vector is zero"
    assert (again.prepared, again.found) == (0, 3 if first == "musicnn" else 2)
    (uri_b,) = (track.uri for track in source_of(job).tracks() if track.id == uris["b"])
    named = f"in quarantine for another teacher: {uri_b}: {stored_id}: its stored vector is zero"
    assert (named in prepare_summary(report, job.store)) == (first == "musicnn")

    # A vector that was mended makes new targets, which need no audio.
    database.execute("UPDATE embedding SET embedding = %s WHERE item_id = 'b'", [good])
    unpinned = StoredConfig(table="embedding")
    changed = prepare_job(
        settings.model_copy(
            update={"teacher": unpinned}
            if first == "stored"
            else {"prepare": PrepareConfig(also=(unpinned,))}
        ).pinned()
    )
    monkeypatch.setattr("etude.data.prepare._rows", lambda *_: pytest.fail("audio was asked for"))
    mended = prepare(changed, quiet)
    assert (mended.prepared, len(mended.quarantined), mended.also_quarantined) == (3, 1, [])


def test_what_is_stored_is_what_the_teacher_and_the_mel_give(demo: AudioExperiment) -> None:
    teacher = build_teacher(demo.teacher)
    splits = demo.open().splits
    source = build_source(demo.source, demo.cache)
    row = splits.test[0]
    audio = decode(asyncio.run(source.fetch(row.track)))
    waveform = prepare_waveform(audio, demo.recipe)
    targets = teacher.embed(audio, segments_of(len(waveform), demo.recipe), row.track)
    np.testing.assert_allclose(row.segment_targets, targets.segments, atol=1e-5)
    np.testing.assert_allclose(row.track_target, targets.track, atol=1e-5)
    np.testing.assert_allclose(row.mel.segments(), log_mel(waveform, demo.recipe).segments(), atol=0.04)


def test_a_library_prepared_otherwise_is_not_used(demo: AudioExperiment) -> None:
    source = build_source(demo.source, demo.cache)
    other = demo.recipe.model_copy(update={"n_mels": 64})
    with pytest.raises(UserError, match="holds features of other recipes"):
        open_splits(demo.store, source.id, other, [build_teacher(demo.teacher).id], SplitConfig())


def test_a_file_that_is_gone_is_out_of_reach_not_bad(tmp_path: Path, library: Path) -> None:
    job = job_for(tmp_path / "home", library)
    track = next(build_source(job.source, job.cache).tracks())
    (library / "a.mp3").unlink()
    fetch = Fetch(job.source, job.cache, attempts=2, concurrency=1)
    row = asyncio.run(fetch._fetch({"track": json.dumps(asdict(track))}))
    assert row["status"] == "unreachable"
    assert "cannot be fetched" in row["reason"]


def test_a_source_that_gave_up_is_not_asked_again(tmp_path: Path, library: Path) -> None:
    job = job_for(tmp_path / "home", library)
    asked = []

    class GaveUp:
        async def fetch(self, track: Track) -> bytes:
            asked.append(track)
            raise OutOfReach("the server is down")

    fetch = Fetch(job.source, job.cache, attempts=3, concurrency=1)
    fetch._source = GaveUp()  # type: ignore[assignment]
    row = asyncio.run(
        fetch._fetch({"track": json.dumps(asdict(next(build_source(job.source, job.cache).tracks())))})
    )
    assert (row["status"], len(asked)) == ("unreachable", 1)
    assert row["reason"] == "cannot be fetched: the server is down"


def test_a_full_disk_is_no_fault_of_a_track(tmp_path: Path, library: Path) -> None:
    job = job_for(tmp_path / "home", library)

    class Full:
        async def fetch(self, track: Track) -> bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

    fetch = Fetch(job.source, job.cache, attempts=3, concurrency=1)
    fetch._source = Full()  # type: ignore[assignment]
    track = next(build_source(job.source, job.cache).tracks())
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(fetch._fetch({"track": json.dumps(asdict(track))}))


class Refusing:
    """A teacher that can make nothing of any track."""

    id = "refusing-0"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def embed(self, audio: Audio, segments: Segments, track: Track) -> Targets:
        raise self.error


def featurized(
    path: Path, teachers: list[object], has_targets: bool = False, asked: list[bool] | None = None
) -> dict[str, Any]:
    """The row of one file with the mel asked for, as the teachers leave it."""
    featurize = Featurize(FeatureRecipe(), [], 3.5, -60.0)
    featurize._teachers = teachers  # type: ignore[assignment]
    row = {
        "track_id": "id",
        "track": json.dumps(asdict(Track("id", path.name, path.name))),
        "data": path.read_bytes(),
        "need_features": True,
        "need_targets": asked or [True] * len(teachers),
        "has_targets": has_targets,
    }
    (result,) = featurize(pa.Table.from_pylist([row])).to_pylist()
    return cast("dict[str, Any]", result)


def test_a_row_says_that_the_audio_is_at_fault(library: Path) -> None:
    row = featurized(library / "empty.ogg", [MusiCNN()])
    assert (row["status"], row["stage"], row["answers"]) == ("quarantined", "decode", None)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadAudio("its stored vector is zero"), "quarantined"),
        (OutOfReach("the database is away"), "unreachable"),
    ],
)
def test_a_row_says_which_teacher_failed_and_keeps_the_rest(
    library: Path, error: Exception, status: str
) -> None:
    heard = featurized(library / "a.mp3", [MusiCNN()])
    row = featurized(library / "a.mp3", [Refusing(error), MusiCNN()])
    refused, given = row["answers"]
    assert (refused["teacher"], refused["status"]) == ("refusing-0", status)
    assert (refused["reason"], refused["segments"]) == (str(error), None)
    assert (row["status"], row["frames"], [given]) == ("prepared", heard["frames"], heard["answers"])

    # A mel is kept where some teacher has targets to go with it.
    assert featurized(library / "a.mp3", [Refusing(error)])["frames"] is None
    assert featurized(library / "a.mp3", [Refusing(error)], has_targets=True)["frames"] == heard["frames"]
    unasked = featurized(library / "a.mp3", [Refusing(error)], has_targets=True, asked=[False])
    assert (unasked["frames"], unasked["answers"]) == (heard["frames"], [])


def test_a_track_is_decoded_and_resampled_once_for_all_teachers(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spoiling:
        """A teacher that works in place on what it is given."""

        id = "spoiling-0"

        def embed(self, audio: Audio, segments: Segments, track: Track) -> Targets:
            audio.resampled(16_000)[:] = 0
            return Targets(np.zeros((len(segments), 1), np.float32), np.zeros(1, np.float32))

    decoded, rates = [], []
    resample = soxr.resample

    def counting(samples: np.ndarray, rate: int, other: int, quality: str) -> np.ndarray:
        rates.append(other)
        return resample(samples, rate, other, quality=quality)

    alone = featurized(library / "b.flac", [MusiCNN()])["answers"]
    monkeypatch.setattr("etude.data.features.decode", lambda data: decoded.append(data) or decode(data))
    monkeypatch.setattr("soxr.resample", counting)
    row = featurized(library / "b.flac", [Spoiling(), MusiCNN(), MusiCNN()])
    assert row["answers"][1:] == alone * 2
    assert (len(decoded), rates) == (1, [16_000])


def test_a_gpu_that_is_not_there_is_told(ray_session: None, tmp_path: Path, library: Path) -> None:
    with pytest.raises(UserError, match="asks for a GPU and the cluster has none"):
        prepare(job_for(tmp_path / "home", library, gpus_per_actor=0.5), quiet)


def test_too_little_disk_is_told_before_any_work(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "free_bytes", lambda self: 1000)
    with pytest.raises(UserError, match="too little disk"):
        prepare(job_for(tmp_path / "home", library), quiet)
    assert not (tmp_path / "home").exists()


def test_a_lost_track_is_noticed() -> None:
    with pytest.raises(AssertionError, match="3 tracks went in, 2 came out"):
        PrepareReport(3, found=1, quarantined=[Quarantined("a", "u", "t", "decode", "r")]).check()


@pytest.mark.parametrize("track_s", [0.5, 240.0])
@pytest.mark.parametrize("n_tracks", [1, 3, 100, 5 * MAX_BLOCKS])
def test_blocks_hold_every_track_once_and_are_not_too_many(n_tracks: int, track_s: float) -> None:
    items = pa.table({"track_id": [str(number) for number in range(n_tracks)]})
    blocks = _blocks(items, 2, n_tracks * track_s)
    assert pa.concat_tables(blocks).equals(items)
    assert len(blocks) <= MAX_BLOCKS
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert max(sizes) <= (BLOCK_TRACKS + 1 if track_s < 1 else max(BLOCK_S / track_s, n_tracks / MAX_BLOCKS))
