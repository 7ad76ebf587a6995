"""A real export against its teacher over the prepared demo library, and what is no such thing."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from etude.data.batches import Dataset, Splits
from etude.errors import UserError
from etude.evaluation.inputs import Inputs, Texts, chosen_set, gather, load_settings, open_model
from etude.evaluation.library import Evaluation, measure
from etude.evaluation.metrics import unit
from etude.evaluation.page import short
from etude.evaluation.retrieval import QUERIES, read_queries
from etude.evaluation.written import figures, keep, write_report
from etude.experiments.audio import AudioStudy
from etude.export.onnx import read_metadata, write_metadata
from etude.systems.student_clap import StudentClap
from etude.tracking.mlflow import Tracking


@pytest.fixture(autouse=True, scope="module")
def home_by_config() -> Iterator[None]:
    """The variable goes before every file, and here the file beside the model is to count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ETUDE_HOME")
        yield


def quiet(done: int, total: int, seconds: float) -> None:
    assert done <= total


@pytest.fixture(scope="module")
def inputs(exported: Path) -> Inputs:
    """All nine tracks, with made-up queries: MusiCNN understands none."""
    gathered = gather(load_settings(["--model", str(exported), "--set", "all"]))
    texts = unit(np.random.default_rng(0).normal(size=(14, 200)))
    return dataclasses.replace(gathered, texts=Texts(read_queries(QUERIES), texts, texts, "made-up vectors"))


@pytest.fixture(scope="module")
def evaluation(inputs: Inputs) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etude.evaluation.library.THREADS", (1,))
        return measure(inputs, quiet)


def test_the_config_beside_the_model_says_what_it_is_compared_with(exported: Path, study: AudioStudy) -> None:
    settings = load_settings(["--model", str(exported)])
    assert settings.set == "test"
    assert settings.source == study.settings.source
    assert settings.home == study.settings.home
    assert load_settings(["--model", str(exported), "--split.seed", "3"]).split.seed == 3
    gathered = gather(settings)
    assert [row.track.id for row in gathered.dataset] == [row.track.id for row in study.test]
    assert gathered.study.data_hash == study.data_hash
    assert gathered.texts == "this teacher, msd_musicnn, understands no text"


def test_figures_are_those_of_the_student_in_pytorch(
    evaluation: Evaluation, system: StudentClap, study: AudioStudy
) -> None:
    ours = chosen_set(study.splits, "all")
    expected = system.evaluate(ours, 8)
    assert evaluation.metrics.as_dict("x") == pytest.approx(expected.as_dict("x"), abs=2e-4, nan_ok=True)
    assert evaluation.metrics.n_tracks == 9
    assert evaluation.neighbours[10] == (evaluation.metrics.overlap, evaluation.metrics.overlap_chance)
    assert evaluation.neighbours[1][1] == pytest.approx(1 / (len(evaluation.track_N) - 2), rel=0.05)
    low, high = evaluation.distribution.skill_interval
    assert low < evaluation.metrics.skill < high
    np.testing.assert_allclose(evaluation.track_cosine_T.mean(), evaluation.metrics.track_cosine)


def test_every_form_and_the_teacher_are_timed(evaluation: Evaluation) -> None:
    timed = [(timing.what, timing.threads) for timing in evaluation.timings]
    assert timed == [("mel", 1), ("waveform", 1), ("teacher", 1)]
    mel, waveform, _ = (timing.ms for timing in evaluation.timings)
    assert 0 < mel < waveform  # which has the front end on top


def test_a_report_says_it_in_tables_numbers_and_plots(evaluation: Evaluation, study: AudioStudy) -> None:
    files = {path.name: path for path in write_report(evaluation)}
    assert set(files) == {
        "report.md", "report.json", "segments.png", "segments.txt", "percentiles.png", "queries.png",
    }  # fmt: skip
    model = evaluation.inputs.model
    folder = study.settings.home / "evaluations" / evaluation.inputs.name
    assert folder.name.startswith(f"{model.hash}-all-")
    assert {path.parent for path in files.values()} == {folder}
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in files.values() if path.suffix == ".png")

    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    plain = json.loads(files["report.json"].read_text(), parse_constant=refuse)
    assert plain["quality"]["cosine"] == pytest.approx(evaluation.metrics.cosine)
    percentiles = plain["distribution"]["cosine"]["percentiles"]
    assert percentiles["50"] > percentiles["1"]
    assert plain["model"]["bytes"] == (model.path).stat().st_size
    assert plain["model"]["parameters"] == study.settings.cost().parameters
    assert len(plain["queries"]["each"]) == 14
    assert plain["queries"]["mean"]["overlap_10"] is None  # nine tracks leave no choice of ten
    page = files["report.md"].read_text()
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert [line.split()[1] for line in headings[1:]] == ["Quality", "Spread", "Text", "Cost", "Plots"]
    assert f"| cosine to the teacher | {evaluation.metrics.cosine:.4f} |" in page
    assert "It has learned from these tracks" in page
    assert "Ukulele POP song" in page
    assert "nan" not in page
    assert all(f"![{name}]({name})" in page for name in files if name.endswith(".png"))
    assert "text queries" in short(evaluation)


def test_without_text_the_report_says_so(evaluation: Evaluation, inputs: Inputs) -> None:
    reason = "this teacher, msd_musicnn, understands no text"
    silent = dataclasses.replace(evaluation, answers=reason, inputs=dataclasses.replace(inputs, texts=reason))
    files = {path.name: path for path in write_report(silent)}
    assert "queries.png" not in files
    assert not (files["report.md"].parent / "queries.png").exists()
    assert "\n\nThis teacher, msd_musicnn, understands no text.\n" in files["report.md"].read_text()
    assert figures(silent)["queries"] == {"none": reason}
    assert reason in short(silent)


def test_mlflow_has_one_run_a_model_and_set(evaluation: Evaluation, mlflow_uri: str) -> None:
    tracking, client = Tracking(mlflow_uri, "evaluate-tests"), MlflowClient(mlflow_uri)
    files = write_report(evaluation)
    urls = {keep(evaluation, files, tracking) for _ in range(2)}
    assert len(urls) == 1
    (run,) = client.search_runs([tracking.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["etude.kind"] == "evaluate"
    assert run.data.params["set"] == "all"
    assert run.data.params["model"] == str(evaluation.inputs.settings.model)
    assert run.data.metrics["quality/cosine"] == pytest.approx(evaluation.metrics.cosine)
    assert run.data.metrics["speed/mel_1/ms"] > 0
    assert "queries/mean/recall_1" in run.data.metrics
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    assert logged == {f"evaluation/{path.name}" for path in files}


def test_other_queries_or_another_split_are_another_evaluation(inputs: Inputs) -> None:
    """Else one report would take the place of the other, and one run in MLflow would hold both figures."""
    texts = inputs.texts
    assert not isinstance(texts, str)
    of = inputs.study.splits
    moved = dataclasses.replace(inputs.study, splits=Splits(of.train, of.validation, of.test, "0123456789ab"))
    others = [
        dataclasses.replace(inputs, texts=dataclasses.replace(texts, queries=("slow piano",))),
        dataclasses.replace(inputs, texts=dataclasses.replace(texts, by="the text student 01234567")),
        dataclasses.replace(inputs, texts="nobody understands text"),
        dataclasses.replace(inputs, study=moved),
    ]
    names = {inputs.name, *(one.name for one in others)}
    assert len(names) == 5
    assert dataclasses.replace(inputs).name == inputs.name


def spoilt(exported: Path, folder: Path, **record: object) -> Path:
    shutil.copytree(exported, folder, dirs_exist_ok=True)
    write_metadata(folder / "student.onnx", read_metadata(exported / "student.onnx") | record)
    return folder


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"recipe_id": "0123"}, "trained on features of recipe 0123"),
        ({"teacher": "clap-0123"}, "learned from clap-0123, the configuration's teacher is msd_musicnn"),
    ],
)
def test_a_model_of_something_else_is_refused(
    exported: Path, tmp_path: Path, record: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        gather(load_settings(["--model", str(spoilt(exported, tmp_path / "other", **record))]))


def test_what_is_no_exported_student_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an ONNX file that Étude has exported"):
        open_model(spoilt(exported, tmp_path / "bare", recipe_id="x") / "config.yaml")
    write_metadata(tmp_path / "bare" / "student.onnx", {})
    with pytest.raises(UserError, match="is not an ONNX file that Étude has exported"):
        load_settings(["--model", str(tmp_path / "bare")])
    write_metadata(tmp_path / "bare" / "student.onnx", {"tokenizer": "x", "max_tokens": 77})
    with pytest.raises(UserError, match="is no audio student"):
        load_settings(["--model", str(tmp_path / "bare")])
    with pytest.raises(UserError, match="cannot read the model"):
        load_settings(["--model", str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match=r"takes waveform: give student\.onnx"):
        open_model(exported / "student_waveform.onnx")
    with pytest.raises(UserError, match="no model is given"):
        gather(load_settings([]))


def test_a_library_that_was_not_prepared_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run jobs/prepare_audio\.py"):
        gather(load_settings(["--model", str(exported), "--home", str(tmp_path)]))


def test_queries_are_refused_where_nobody_understands_them(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("slow piano\n")
    for option in ("--queries", "--text_student"):
        with pytest.raises(UserError, match=f"{option} cannot be used: this teacher"):
            gather(load_settings(["--model", str(exported), option, str(tmp_path / "mine.txt")]))


def test_an_empty_set_is_refused(study: AudioStudy) -> None:
    recipe = study.settings.recipe
    splits = Splits(study.splits.train, Dataset([], recipe), study.splits.test, "none")
    with pytest.raises(UserError, match="the validation set holds no track"):
        chosen_set(splits, "validation")
    assert len(chosen_set(study.splits, "all")) == 9
