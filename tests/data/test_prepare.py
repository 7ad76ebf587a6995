"""The pipeline prepares what can be prepared, explains the rest, and never does anything twice."""

import asyncio
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile

from etude.audio.decode import decode
from etude.audio.mel import log_mel
from etude.audio.segment import segments_of
from etude.audio.waveform import prepare_waveform
from etude.data.batches import open_splits
from etude.data.features import Featurize
from etude.data.fetch import Fetch
from etude.data.plan import Job, PrepareConfig, plan
from etude.data.prepare import MAX_BLOCKS, PrepareReport, _blocks, prepare
from etude.data.split import SplitConfig
from etude.data.store import Quarantined, Store, features_part, targets_part
from etude.errors import BadAudio, OutOfReach, UserError
from etude.experiment import Experiment, open_data, prepare_job
from etude.sources import FolderConfig, build_source
from etude.sources.base import Track
from etude.teachers import MusiCNNConfig, build_teacher


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
    base = prepare_job(Experiment(home=home, source=FolderConfig(name="folder", path=folder)))
    return replace(base, prepare=PrepareConfig(shard_tracks=2, **prepare_options))


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


def test_a_library_without_a_usable_track_is_refused(ray_session: None, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "a.mp3").write_text("no music")
    with pytest.raises(UserError, match=r"none of the 1 tracks is usable .*a\.mp3"):
        prepare(job_for(tmp_path / "home", folder), quiet)


def test_only_what_is_missing_is_done(demo: Experiment) -> None:
    job = prepare_job(demo)
    store = Store(job.store)
    part = features_part(job.recipe)
    folder = Path(store.root) / part
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    targets = targets_part(build_teacher(job.teacher).id, job.recipe)
    lost = sorted((Path(store.root) / "commits" / targets).iterdir())[0]
    n_lost = len(json.loads(lost.read_text())["tracks"])
    lost.unlink()
    planned = plan(job)
    assert (planned.need_features.sum(), planned.need_targets.sum()) == (0, n_lost)
    assert prepare(job, quiet).prepared == n_lost
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.slow
def test_a_second_teacher_adds_files_and_rewrites_none(demo: Experiment) -> None:
    job = prepare_job(demo)
    root = Path(job.store)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.arrow")}
    other = replace(job, teacher=MusiCNNConfig(name="mtt_musicnn"))
    assert prepare(other, quiet).prepared == 9
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*.arrow")}
    assert {path: after[path] for path in before} == before
    assert {path.relative_to(root).parts[1] for path in set(after) - set(before)} == {"mtt_musicnn-041f3935"}


def test_what_is_stored_is_what_the_teacher_and_the_mel_give(demo: Experiment) -> None:
    teacher = build_teacher(demo.teacher)
    splits = open_data(demo, teacher)
    source = build_source(demo.source, demo.cache)
    row = splits.test[0]
    audio = decode(asyncio.run(source.fetch(row.track)))
    waveform = prepare_waveform(audio, demo.recipe)
    targets = teacher.embed(audio, segments_of(len(waveform), demo.recipe), row.track)
    np.testing.assert_allclose(row.segment_targets, targets.segments, atol=1e-5)
    np.testing.assert_allclose(row.track_target, targets.track, atol=1e-5)
    np.testing.assert_allclose(row.mel.segments(), log_mel(waveform, demo.recipe).segments(), atol=0.04)


def test_a_library_prepared_otherwise_is_not_used(demo: Experiment) -> None:
    source = build_source(demo.source, demo.cache)
    other = demo.recipe.model_copy(update={"n_mels": 64})
    with pytest.raises(UserError, match="holds features of other recipes"):
        open_splits(demo.store, source.id, other, build_teacher(demo.teacher).id, SplitConfig())


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


@pytest.mark.parametrize(
    ("name", "error", "status", "stage"),
    [
        ("empty.ogg", None, "quarantined", "decode"),
        ("a.mp3", BadAudio("its stored vector is zero"), "quarantined", "teacher"),
        ("a.mp3", OutOfReach("the database is away"), "unreachable", "teacher"),
    ],
)
def test_a_row_says_at_which_step_it_failed(
    tmp_path: Path, library: Path, name: str, error: Exception | None, status: str, stage: str
) -> None:
    class Refusing:
        def embed(self, *heard: object) -> None:
            raise error

    job = job_for(tmp_path / "home", library)
    featurize = Featurize(job.recipe, job.teacher, 3.5, -60.0)
    featurize._teacher = Refusing()  # type: ignore[assignment]
    track = Track("id", name, name)
    row = {"track_id": "id", "track": json.dumps(asdict(track)), "data": (library / name).read_bytes()}
    table = pa.Table.from_pylist([row | {"need_features": False, "need_targets": True}])
    (result,) = featurize(table).to_pylist()
    assert (result["status"], result["stage"]) == (status, stage)
    if error:
        assert result["reason"] == str(error)


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


@pytest.mark.parametrize("n_tracks", [1, 3, 100, 5 * MAX_BLOCKS])
def test_blocks_hold_every_track_once_and_are_not_too_many(n_tracks: int) -> None:
    items = pa.table({"track_id": [str(number) for number in range(n_tracks)]})
    blocks = _blocks(items, cpus=2)
    assert pa.concat_tables(blocks).equals(items)
    assert len(blocks) <= MAX_BLOCKS
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
