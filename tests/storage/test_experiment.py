"""An experiment's storage: where things lie, what does not depend on it, and who may write there."""

import json
from pathlib import Path

import pytest

from etude.config import load
from etude.data.plan import plan
from etude.data.prepare import prepare
from etude.data.prepare_emotion import EmotionJob, prepare_emotion
from etude.data.store import Store, features_part
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import fingerprint
from etude.experiments.emotion import EmotionExperiment
from etude.experiments.library import prepare_job
from etude.export.emotion import EmotionRelease
from etude.storage.lock import held
from etude.workflow import TrainSettings, train_and_publish
from tests.support.emotion import synthetic_experiment
from tests.support.s3_server import address


class TrainEmotion(EmotionExperiment, TrainSettings):
    """A training job's settings."""


def test_without_one_home_is_the_storage_and_with_one_home_keeps_the_rest(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    plain = AudioExperiment(home=home)
    assert plain.place.root == str(home)
    assert plain.store.root == str(home / "store")
    chosen = AudioExperiment(home=home, storage=str(shared))
    assert chosen.store.root == str(shared / "store")
    assert chosen.cache == home / "cache"
    assert not shared.exists()


def test_a_password_in_an_address_is_refused_and_not_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"storage.*holds a password: give it by AWS_ACCESS_KEY_ID") as caught:
        load(AudioExperiment, ["--home", str(tmp_path), "--storage", "s3://key:hunter2@bucket/x"])
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UserError, match="neither a folder nor an address"):
        load(AudioExperiment, ["--home", str(tmp_path), "--storage", "ftp://there/x"])


def test_a_bucket_that_is_not_there_is_told_at_once(s3_port: int, tmp_path: Path) -> None:
    where = address(s3_port, "x").replace("etude-test", "none-such")
    with pytest.raises(UserError, match="there is no bucket s3://none-such"):
        plan(prepare_job(AudioExperiment(home=tmp_path, storage=where)))


def test_a_runs_name_does_not_depend_on_the_storage(tmp_path: Path, s3_port: int) -> None:
    one = synthetic_experiment(tmp_path / "home")
    other = one.model_copy(update={"storage": address(s3_port, "emotion")})
    for path in one.place.list("store", ""):
        other.place.write(path, one.place.read(path) or b"")
    assert fingerprint(one.open()) == fingerprint(other.open())


def test_the_same_recipe_is_not_prepared_twice_at_once(tmp_path: Path) -> None:
    job = prepare_job(load(AudioExperiment, ["--home", str(tmp_path), "--source.pieces", "3"]))
    with (
        Store(job.store).held(features_part(job.recipe)),
        pytest.raises(UserError, match=r"another run is at work on features/.* in .*store .*wait for it"),
    ):
        prepare(job, lambda done, total, seconds: pytest.fail("it began"))
    emotion = EmotionExperiment(home=tmp_path)
    own = EmotionJob(emotion.store.root, emotion.cache, emotion.source, emotion.analysis)
    with emotion.store.held(emotion.analysis.part), pytest.raises(UserError, match="another run is at work"):
        prepare_emotion(own, lambda done, total: pytest.fail("it began"))


def test_a_runs_name_is_trained_once_at_a_time(tmp_path: Path) -> None:
    settings = synthetic_experiment(tmp_path / "home")
    chosen = TrainEmotion(**settings.model_dump(), run="mine")
    name = f"mine-{fingerprint(settings.open())}"
    with (
        held(settings.place.at(f"runs/{name}"), "it"),
        pytest.raises(UserError, match=rf"another run is at work on the run {name} \(on "),
    ):
        train_and_publish(chosen, EmotionExperiment, EmotionRelease)
    holder = json.loads((tmp_path / "home" / "runs" / name / "lock").read_text())
    assert holder.keys() == {"host", "since", "owner"}
