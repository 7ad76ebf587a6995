"""Queries become vectors by the right model, once for an exported text student and once for CLAP's shape."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from etude.audio.recipe import FeatureRecipe
from etude.data.store import Store
from etude.errors import UserError
from etude.evaluation.inputs import gather, load_settings
from etude.evaluation.library import measure
from etude.evaluation.metrics import unit
from etude.evaluation.text import ExportedText, embed_queries, without_encoder
from etude.evaluation.written import write_report
from etude.export.onnx import export_onnx, write_metadata
from etude.objectives.distillation import ObjectiveConfig
from etude.sources import DemoConfig, build_source
from etude.students.text import TextStudentConfig
from etude.students.tokens import Tokens, load_tokenizer
from etude.systems.text_student import TextSystem
from etude.teachers import LaionClapConfig, MusiCNNConfig
from etude.teachers.clap import Clap
from etude.teachers.clap_text import ClapText
from etude.teachers.stand_in import AUDIO, TEXT, TOKENIZER, write_stand_in
from tests.evaluation.conftest import export
from tests.support.library import made_up_library

SMALL = TextStudentConfig(hidden=16, layers=1, heads=2, token_dim=8)
QUERIES = ("slow piano", "drums and a bass that never ends", "x")


def text_student(folder: Path, tokens: Tokens, teacher: str) -> TextSystem:
    """Export a student of random weights as `TextRelease` has it."""
    torch.manual_seed(0)
    system = TextSystem(
        SMALL, ObjectiveConfig(), vocabulary=tokens.vocabulary, dim=512, normalized=True
    ).eval()
    (spec,) = system.exports()
    record = {"tokenizer": tokens.id, "max_tokens": tokens.max_tokens, "teacher": teacher}
    write_metadata(export_onnx(spec, folder), record)
    (folder / "tokenizer.json").write_bytes(tokens.content)
    return system


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TextSystem, Tokens]:
    folder, tokens = tmp_path_factory.mktemp("text"), load_tokenizer(None, 77)
    return folder / "text_student.onnx", text_student(folder, tokens, "clap_text-0"), tokens


def test_an_exported_text_student_says_what_it_says_in_pytorch(
    student: tuple[Path, TextSystem, Tokens],
) -> None:
    path, system, tokens = student
    with torch.inference_mode():
        expected = system.student(*tokens.ids(QUERIES)).numpy()
    found = embed_queries(ExportedText(path, "clap_text-0"), QUERIES)
    np.testing.assert_allclose(found, unit(expected), atol=1e-5)


def test_a_query_that_is_too_long_is_refused(student: tuple[Path, TextSystem, Tokens]) -> None:
    exported = ExportedText(student[0], "clap_text-0")
    assert exported.too_long(["piano", "piano " * 80]) == [1]
    with pytest.raises(UserError, match=r"'piano piano .*\.\.\.' is longer .* takes \(77 tokens"):
        embed_queries(exported, ["piano", "piano " * 80])


def test_what_does_not_fit_together_is_refused(
    student: tuple[Path, TextSystem, Tokens], tmp_path: Path
) -> None:
    path, _, tokens = student
    with pytest.raises(UserError, match="learned from clap_text-0, the tracks are found by clap_text-1"):
        ExportedText(path, "clap_text-1")
    with pytest.raises(UserError, match="cannot read the model"):
        ExportedText(tmp_path / "nowhere.onnx", "clap_text-0")
    (tmp_path / "text_student.onnx").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        ExportedText(tmp_path / "text_student.onnx", "clap_text-0")
    other = json.loads(tokens.content) | {"version": "1.0", "truncation": None, "padding": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="with which it was trained"):
        ExportedText(tmp_path / "text_student.onnx", "clap_text-0")
    with pytest.raises(UserError, match="not an ONNX file that Étude has exported"):
        ExportedText(tmp_path / "tokenizer.json", "clap_text-0")
    write_metadata(tmp_path / "text_student.onnx", {"recipe_id": "x", "teacher": "clap_text-0"})
    with pytest.raises(UserError, match="is no text student"):
        ExportedText(tmp_path / "text_student.onnx", "clap_text-0")


def test_who_understands_no_text_is_named() -> None:
    assert "msd_musicnn, understands no text" in without_encoder(MusiCNNConfig())
    assert "laion_clap" in without_encoder(LaionClapConfig(checkpoint=Path("x.pt")))


@pytest.mark.slow
def test_queries_are_ranked_with_a_clap(tmp_path: Path) -> None:
    """The stand-in's weights are random: what is shown is that all of it runs, and who ranks for whom."""
    files = tmp_path / "clap"
    write_stand_in(files)
    teacher = Clap(files / AUDIO)
    made_up_library(tmp_path / "store", n_tracks=40, teacher=teacher.id, dim=512)
    store = Store(tmp_path / "store")
    source = build_source(DemoConfig(), tmp_path / "cache")
    store.write_catalogue(source.id, list(store.read_catalogue("made-up")))
    (tmp_path / "anchors.json").write_text('{"Genre_Style": ["rock", "jazz"]}')
    words = [
        "--home", str(tmp_path), "--split.test", "0.45", "--student.name", "convnet",
        "--student.width", "0.1",
        "--teacher.name", "clap", "--teacher.model", str(files / AUDIO), "--teacher.text_model",
        str(files / TEXT), "--teacher.tokenizer", str(files / TOKENIZER), "--teacher.anchors",
        str(tmp_path / "anchors.json"),
    ]  # fmt: skip
    study = load_settings(words).open()
    exported = export(study.system(seed=0).eval(), study, tmp_path)
    text = ClapText(files / TEXT, files / TOKENIZER)
    text_student(tmp_path, load_tokenizer(files / TOKENIZER, 77), text.id)

    evaluation = measure(gather(load_settings(["--model", str(exported), *words])), lambda *_: None)
    answers = evaluation.answers
    assert not isinstance(answers, str)
    assert len(answers.each) == 14
    assert len(evaluation.inputs.dataset) > 10
    assert 0 <= answers.mean.map_10 <= 1
    tracks = np.stack([row.track_target for row in evaluation.inputs.dataset])
    expected = unit(text.embed(answers.queries)) @ unit(tracks).T
    np.testing.assert_allclose(answers.teacher_QT, expected, atol=1e-5)
    assert "| Ukulele POP song |" in write_report(evaluation)[0].read_text()

    (tmp_path / "mine.txt").write_text("slow piano\nloud drums\n")
    also = ["--text_student", str(tmp_path / "text_student.onnx"), "--queries", str(tmp_path / "mine.txt")]
    inputs = gather(load_settings(["--model", str(exported), *words, *also]))
    assert not isinstance(inputs.texts, str)
    assert inputs.texts.queries == ("slow piano", "loud drums")
    assert inputs.texts.by.startswith("the text student ")
    assert np.abs(inputs.texts.teacher_QD - inputs.texts.student_QD).max() > 0.01
    (tmp_path / "mine.txt").write_text("piano " * 200)
    with pytest.raises(UserError, match="longer than the text model takes"):
        gather(load_settings(["--model", str(exported), *words, *also]))
    assert FeatureRecipe().id == study.settings.recipe.id
