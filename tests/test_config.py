"""A configuration is read as its user means it, or refused in one sentence."""

from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr, model_validator

from etude.config import (
    MASK,
    PRIVATE_ENVIRONMENT,
    Secret,
    Section,
    Settings,
    load,
    mask,
    read_yaml,
    save,
    with_overrides,
)
from etude.errors import UserError
from etude.experiment import Experiment
from etude.tuning.trial import SweepExperiment, trial_settings


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    settings = load(
        Experiment, ["--config", str(write(tmp_path / "c.yaml", "training: {learning_rate: 1e-4}"))]
    )
    assert settings.training.learning_rate == pytest.approx(1e-4)
    assert read_yaml(write(tmp_path / "d.yaml", "a: [1e-4, 2E3, -1e2, 1.5e-3, .5, e5, 1e]")) == {
        "a": [1e-4, 2000.0, -100.0, 1.5e-3, 0.5, "e5", "1e"]
    }


def test_command_line_wins_over_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "c.yaml", "student: {width: 0.2, dropout: 0.3}\nseed: 5")
    monkeypatch.setenv("ETUDE_STUDENT__WIDTH", "0.5")
    settings = load(Experiment, ["--config", str(path), "--student.dropout", "0.4"])
    assert (settings.student.width, settings.student.dropout, settings.seed) == (0.5, 0.4, 5)


def test_names_in_yaml_come_from_the_environment_or_dotenv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSIC", "/music")
    monkeypatch.delenv("SERVER", raising=False)
    write(tmp_path / ".env", "SERVER=http://127.0.0.1:1\n")
    path = write(
        tmp_path / "c.yaml", "source: {name: folder, path: '${MUSIC}/a$$b'}\ntracking: {uri: '${SERVER}'}"
    )
    settings = load(Experiment, ["--config", str(path)])
    assert str(settings.source.path) == "/music/a$b"
    assert settings.tracking.uri == "http://127.0.0.1:1"
    monkeypatch.delenv("SERVER")


def test_the_environment_does_not_reach_what_code_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial's drawn width must not silently become the environment's."""
    monkeypatch.setenv("ETUDE_STUDENT__WIDTH", "0.5")
    settings = load(SweepExperiment, ["--student.dropout", "0.2"])
    assert settings.student.width == 0.5
    assert trial_settings(settings, {"student.width": 0.3}).student.width == 0.3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--student.widht", "1"], "did you mean student.width?"),
        (["--pieces=3"], "did you mean source.pieces?"),
        (["--student.width", "abc"], "student.width: input should be a valid number"),
        (["--student.width", "-1"], "student.width: input should be greater than"),
        (["--source.name", "folder"], "source.path is not set"),
        (
            ["--source.name", "folder", "--source.path", "/x", "--source.pieces", "3"],
            "source.pieces does not go with",
        ),
        (["--student.name", "resnet"], "student.name"),
        (["surprise"], "is not expected here"),
        (["--objective.weights.cosine", "0"], "at least one weight must be above 0"),
        (["--config", "/nowhere.yaml"], "cannot read the configuration file /nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_one_sentence(argv: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load(Experiment, argv)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "training: {lerning_rate: 0.1}")
    with pytest.raises(UserError, match=r"training\.lerning_rate; did you mean training\.learning_rate\?"):
        load(Experiment, ["--config", str(path)])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: ${NOT_SET_ANYWHERE}", "a: 5 $"])
def test_broken_files_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"c\.yaml"):
        read_yaml(write(tmp_path / "c.yaml", text))


def test_what_is_saved_loads_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ETUDE_HOME")
    settings = load(Experiment, ["--student.width", "0.3", "--source.pieces", "7", "--home", str(tmp_path)])
    save(settings, tmp_path / "c.yaml")
    assert load(Experiment, ["--config", str(tmp_path / "c.yaml")]) == settings


def test_secrets_are_masked_everywhere(tmp_path: Path) -> None:
    class Login(Section):
        password: SecretStr
        uri: str

    login = Login(password=SecretStr("hunter2"), uri="http://me:hunter2@host/x")
    save(login, tmp_path / "c.yaml")
    assert "hunter2" not in (tmp_path / "c.yaml").read_text()
    assert mask(login) == {"password": MASK, "uri": f"http://{MASK}@host/x"}
    assert "hunter2" not in yaml.safe_dump(mask([{"a": (login,)}]))


def test_a_saved_secret_must_be_given_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Login(Settings):
        password: Secret

    login = load(Login, ["--password", "hunter2"])
    save(login, tmp_path / "c.yaml")
    with pytest.raises(UserError, match="holds no secrets: give this one"):
        load(Login, ["--config", str(tmp_path / "c.yaml")])
    monkeypatch.setenv("ETUDE_PASSWORD", "hunter2")
    assert load(Login, ["--config", str(tmp_path / "c.yaml")]) == login


def test_no_secret_stands_in_an_error(tmp_path: Path) -> None:
    class Login(Section):
        password: Secret
        user: str = ""

        @model_validator(mode="after")
        def _user(self) -> "Login":
            if not self.user:
                raise ValueError("give a user")
            return self

    class Job(Settings):
        login: Login
        other: Secret | None = None

    for text, said in (
        ("login: {password: hunter2}", "login: give a user"),
        ("login: {password: [hunter2], user: me}", "login.password: input should be a valid string"),
        ("{login: {password: 1, user: me}, other: [hunter2]}", "other: input should be a valid string"),
    ):
        with pytest.raises(UserError) as caught:
            load(Job, ["--config", str(write(tmp_path / "c.yaml", text))])
        assert str(caught.value) == said
    assert load(Job, ["--login.password", "12345", "--login.user", "me"]).login.user == "me"
    read = load(Job, ["--config", str(write(tmp_path / "d.yaml", "login: {password: 12345, user: me}"))])
    assert read.login.password.get_secret_value() == "12345"


def test_a_variable_without_effect_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ETUDE_STUDNT__WIDTH", "0.3")
    monkeypatch.setenv("ETUDE_STUDENT__WIDTH", "0.3")
    load(Experiment, [])
    (record,) = caplog.records
    assert "ETUDE_STUDNT__WIDTH is set and has no effect" in record.message
    assert "did you mean student.width?" in record.message


def test_a_submitted_jobs_variables_come_in_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.env").write_text("ETUDE_STUDENT__WIDTH='0.7'\n")
    monkeypatch.setenv("ETUDE_STUDENT__WIDTH", "0.3")
    monkeypatch.setenv(PRIVATE_ENVIRONMENT, str(tmp_path / "job.env"))
    assert load(Experiment, []).student.width == 0.7


def test_dotted_overrides_leave_the_rest() -> None:
    assert with_overrides({"a": {"b": 1, "c": 2}}, {"a.b": 5, "d.e": 6}) == {
        "a": {"b": 5, "c": 2},
        "d": {"e": 6},
    }


def test_a_dollar_in_a_path_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ETUDE_HOME")
    settings = load(Experiment, ["--source.name", "folder", "--source.path", str(tmp_path / "A$AP ${X}")])
    save(settings, tmp_path / "c.yaml")
    assert load(Experiment, ["--config", str(tmp_path / "c.yaml")]) == settings


def test_a_relative_library_means_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in folders of their own, where `music` would be another place."""
    monkeypatch.chdir(tmp_path)
    settings = load(Experiment, ["--source.name", "folder", "--source.path", "music"])
    assert settings.source.path == tmp_path / "music"
