"""A text student from queries to a checked file, with the real MiniLM as teacher."""

import json
from pathlib import Path

import numpy as np
import pytest

from etude.data.queries import QueryConfig
from etude.errors import UserError
from etude.experiments.base import fingerprint
from etude.experiments.text import TextExperiment, TextStudy
from etude.export.onnx import read_metadata, run_onnx, session
from etude.export.publish import publish
from etude.export.text import TextRelease
from etude.students.text import TextStudentConfig
from etude.students.tokens import load_tokenizer
from etude.tracking.mlflow import Tracking
from etude.training.loop import train
from etude.training.plan import TrainingConfig


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TextStudy:
    return TextExperiment(
        home=tmp_path_factory.mktemp("home"),
        queries=QueryConfig(per_epoch=256, evaluated=64),
        student=TextStudentConfig(hidden=32, layers=1, heads=2, token_dim=8),
        training=TrainingConfig(epochs=2, stage2_epochs=1, batch_size=32, learning_rate=5e-3),
    ).open()


def test_a_text_student_learns_and_its_file_answers_alike(
    study: TextStudy, mlflow_uri: str, tmp_path: Path
) -> None:
    skills: list[float] = []
    train(
        study.system(0), study, study.settings.training, seed=0, folder=tmp_path / "run",
        report=lambda metrics, path: skills.append(metrics["validation/skill"]), identity=study.identity(),
    )  # fmt: skip
    assert skills[-1] > skills[0]
    tracking = Tracking(mlflow_uri, "text-tests")
    run_id = tracking.run("text", "text")
    published = publish(
        TextRelease(study), tmp_path / "run" / "best.pt", tracking, run_id, tmp_path / "out", {}
    )
    assert published.champion
    assert published.parity["input_ids"].min_cosine > 0.9999
    assert {path.name for path in published.folder.iterdir()} == {
        "README.md", "config.yaml", "test_set.png", "test_set.txt", "text_student.onnx", "tokenizer.json",
    }  # fmt: skip
    # A reader of the files alone gets what the study measured.
    record = read_metadata(published.files[0])
    tokens = load_tokenizer(published.folder, int(str(record["max_tokens"])))
    assert tokens.id == record["tokenizer"]
    ids, mask = tokens.ids(study.test.texts, tokens.max_tokens)
    named = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    vectors = run_onnx(session(published.files[0]), named, 16)
    cosine = (vectors * study.test.vectors).sum(axis=1).mean()
    assert cosine == pytest.approx(published.test.cosine, abs=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_what_shapes_a_student_changes_its_name(study: TextStudy, tmp_path: Path) -> None:
    other = study.settings.model_copy(update={"queries": QueryConfig(per_epoch=128, evaluated=64)})
    assert fingerprint(other.open()) != fingerprint(study)
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"Mood": ["calm", "wild", "sad", "glad"], "Genre": ["rock", "jazz", "folk"]}))
    with pytest.raises(UserError, match="Tempo"):
        TextExperiment(queries=QueryConfig(terms=terms, categories=("Tempo",))).open()
