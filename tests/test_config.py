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
    options_outside,
    read_yaml,
    save,
    with_overrides,
)
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import part
from etude.tuning.trial import trial_settings
from etude.workflow import TuneSettings


class TuneAudio(TuneSettings, AudioExperiment):
    """As the job has it."""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    settings = load(
        AudioExperiment, ["--config", str(write(tmp_path / "c.yaml", "training: {learning_rate: 1e-4}"))]
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
    settings = load(AudioExperiment, ["--config", str(path), "--student.dropout", "0.4"])
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
    settings = load(AudioExperiment, ["--config", str(path)])
    assert str(settings.source.path) == "/music/a$b"
    assert settings.tracking.uri == "http://127.0.0.1:1"
    monkeypatch.delenv("SERVER")


def test_the_environment_does_not_reach_what_code_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial's drawn width must not silently become the environment's."""
    monkeypatch.setenv("ETUDE_STUDENT__WIDTH", "0.5")
    settings = load(TuneAudio, ["--student.dropout", "0.2"])
    assert settings.student.width == 0.5
    assert trial_settings(part(settings, AudioExperiment), {"student.width": 0.3}).student.width == 0.3


class Skips(Settings):
    skip_training: bool = False
    folder: Path = Path("a-b")


def test_options_may_have_hyphens(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(Skips, ["--skip-training"]).skip_training
    assert not load(Skips, ["--skip-training", "--no-skip-training"]).skip_training
    assert load(Skips, ["--skip_training"]).folder == Path("a-b")
    assert load(Skips, ["--folder", "c-d"]).folder == Path("c-d")
    assert load(Skips, ["--folder=--c-d"]).folder == Path("--c-d")
    assert load(AudioExperiment, ["--training.learning-rate", "1e-4"]).training.learning_rate == 1e-4
    monkeypatch.setenv("SKIP_TRAINING", "1")  # of some other program
    assert not load(Skips, []).skip_training
    monkeypatch.setenv("ETUDE_SKIP_TRAINING", "1")
    assert load(Skips, []).skip_training


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
        load(AudioExperiment, argv)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", "training: {lerning_rate: 0.1}")
    with pytest.raises(UserError, match=r"training\.lerning_rate; did you mean training\.learning_rate\?"):
        load(AudioExperiment, ["--config", str(path)])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "a: ${NOT_SET_ANYWHERE}"])
def test_broken_files_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"c\.yaml"):
        read_yaml(write(tmp_path / "c.yaml", text))


def test_what_is_saved_loads_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ETUDE_HOME")
    settings = load(
        AudioExperiment, ["--student.width", "0.3", "--source.pieces", "7", "--home", str(tmp_path)]
    )
    save(settings, tmp_path / "c.yaml")
    assert load(AudioExperiment, ["--config", str(tmp_path / "c.yaml")]) == settings


def test_secrets_are_masked_everywhere(tmp_path: Path) -> None:
    class Login(Section):
        password: SecretStr
        uri: str

    login = Login(password=SecretStr("hunter2"), uri="http://me:hunter2@host/x")
    save(login, tmp_path / "c.yaml")
    assert "hunter2" not in (tmp_path / "c.yaml").read_text()
    assert mask(login) == {"password": MASK, "uri": f"http://{MASK}@host/x"}
    assert "hunter2" not in yaml.safe_dump(mask([{"a": (login,)}]))


def test_a_saved_configuration_holds_no_secret_and_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Login(Settings):
        password: Secret

    login = load(Login, ["--password", "hunter2"])
    save(login, tmp_path / "c.yaml")
    argv = ["--config", str(tmp_path / "c.yaml")]
    with pytest.raises(UserError, match=r"^password is not set: put it into \.env as ETUDE_PASSWORD=\.\.\.$"):
        load(Login, argv)
    monkeypatch.setenv("HOME", str(tmp_path))  # what dotenv sets goes again with this test's environment
    monkeypatch.setenv("ETUDE_PASSWORD", "hunter2")
    assert load(Login, argv) == login


def test_the_env_file_beside_a_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BESIDE", "")
    monkeypatch.delenv("BESIDE")  # so that it is taken away again
    (tmp_path / ".env").write_text("BESIDE=7\n")
    path = write(tmp_path / "c.yaml", "source: {pieces: '${BESIDE}'}")
    assert load(AudioExperiment, ["--config", str(path)]).source.pieces == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("login: {password: [hunter2], user: me}", "login.password: it must be text: put it into quotes"),
        ("login: {password: 01234, user: me}", "login.password: it must be text: put it into quotes"),
        ("login: {password: '', user: me}", "login.password: it is empty"),
        ('login: {password: "hunter2\\n", user: me}', "login.password: it holds a line break"),
        ("login: {password: hunter2}", "login: give a user"),
        ("login: {password: hunter2, user: [hunter2]}", "login.user: input should be a valid string"),
        ("other: [hunter2]", "other: it must be text: put it into quotes"),
        ("login: {password: 'hunter2, user: me}", "is not valid YAML in line"),
        ("login: {password: '${HUNTER2}', user: me}", "uses ${HUNTER2}: set HUNTER2"),
    ],
)
def test_no_secret_stands_in_an_error(tmp_path: Path, text: str, said: str) -> None:
    class Login(Section):
        password: Secret
        user: str = ""

        @model_validator(mode="after")
        def _user(self) -> "Login":
            if not self.user:
                raise ValueError("give a user")
            return self

    class Job(Settings):
        login: Login | None = None
        other: Secret | None = None

    with pytest.raises(UserError) as caught:
        load(Job, ["--config", str(write(tmp_path / "c.yaml", text))])
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    for words in (["--login", '{"password": "hunter2"'], ["--login.password", "hunter2"]):
        with pytest.raises(UserError) as caught:
            load(Job, words)
        assert "hunter2" not in str(caught.value)


def test_a_dollar_sign_that_names_nothing_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRET", "no")
    read = read_yaml(write(tmp_path / "c.yaml", "a: hunter2$\nb: SE$KRET\nc: $$x\nd: x${KRET}y"))
    assert read == {"a": "hunter2$", "b": "SE$KRET", "c": "$x", "d": "xnoy"}


MUSE = ["--source.name", "audiomuse", "--source.dsn", "postgresql://h/d"]
AUDIO = ["--source.audio.url", "http://h:1", "--source.audio.token", "t"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--source.name", "jellyfin", "--source.url", "http://h:1"], "source.token is not set: put it into"),
        (MUSE, "source.audio is not set"),
        ([*MUSE, *AUDIO], "source.audio.name is not set"),
        ([*MUSE, *AUDIO[2:], "--source.audio.name", "jellyfin"], "source.audio.url is not set; give"),
        ([*MUSE, *AUDIO, "--source.audio.name", "subsonic", "--source.audio.user", "me"],
         "source.audio.token does not go with the chosen source.audio.name (subsonic)"),
        (["--source.name", "plex"], "source.name"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_section_within_a_section_is_named_as_its_user_writes_it(
    argv: list[str], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        load(AudioExperiment, argv)
    assert said in str(caught.value)


def test_an_unknown_key_within_is_named_without_the_members(tmp_path: Path) -> None:
    text = "source: {name: audiomuse, dsn: 'postgresql://h/d', audio: {name: emby, url: 'http://h', tokn: t}}"
    with pytest.raises(UserError, match=r"key source\.audio\.tokn; did you mean source\.audio\.token"):
        load(AudioExperiment, ["--config", str(write(tmp_path / "c.yaml", text))])


def test_a_variable_without_effect_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ETUDE_STUDNT__WIDTH", "0.3")
    monkeypatch.setenv("ETUDE_STUDENT__WIDTH", "0.3")
    load(AudioExperiment, [])
    (record,) = caplog.records
    assert "ETUDE_STUDNT__WIDTH is set and has no effect" in record.message
    assert "did you mean student.width?" in record.message


def test_a_submitted_jobs_variables_come_in_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.env").write_text("ETUDE_STUDENT__WIDTH='0.7'\n")
    monkeypatch.setenv("ETUDE_STUDENT__WIDTH", "0.3")
    monkeypatch.setenv(PRIVATE_ENVIRONMENT, str(tmp_path / "job.env"))
    assert load(AudioExperiment, []).student.width == 0.7


def test_dotted_overrides_leave_the_rest() -> None:
    assert with_overrides({"a": {"b": 1, "c": 2}}, {"a.b": 5, "d.e": 6}) == {
        "a": {"b": 5, "c": 2},
        "d": {"e": 6},
    }


def test_a_dollar_in_a_path_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ETUDE_HOME")
    settings = load(
        AudioExperiment, ["--source.name", "folder", "--source.path", str(tmp_path / "A$AP ${X}")]
    )
    save(settings, tmp_path / "c.yaml")
    assert load(AudioExperiment, ["--config", str(tmp_path / "c.yaml")]) == settings


def test_a_relative_library_means_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in folders of their own, where `music` would be another place."""
    monkeypatch.chdir(tmp_path)
    settings = load(AudioExperiment, ["--source.name", "folder", "--source.path", "music"])
    assert settings.source.path == tmp_path / "music"


def test_a_section_of_a_file_and_its_options_can_be_a_job_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ETUDE_HOME")
    path = write(tmp_path / "c.yaml", "audio: {student: {width: 0.3}}\ntext: {student: {hidden: 32}}")
    words = ["--config", str(path), "--audio.student.dropout", "0.2", "--text.seed", "7", "--plan"]
    audio = load(AudioExperiment, [*words, "--section", "audio"])
    assert (audio.student.width, audio.student.dropout, audio.seed) == (0.3, 0.2, 0)
    assert options_outside(("audio", "text"), words) == ["--config", str(path), "--plan"]


def test_a_switch_with_a_value_is_told_how_to_be_turned_off() -> None:
    class Switched(Settings):
        plan: bool = True

    assert not load(Switched, ["--no-plan"]).plan
    with pytest.raises(UserError, match="a switch such as --plan is turned off by --no-plan"):
        load(Switched, ["--plan", "false"])


def test_numbers_are_finite() -> None:
    for words in (["--augment.gain_db", "inf"], ["--training.learning_rate", "nan"]):
        with pytest.raises(UserError, match="finite number"):
            load(AudioExperiment, words)


def test_a_secret_in_a_list_is_not_quoted_either(tmp_path: Path) -> None:
    text = "prepare: {also: [{name: stored, dsn: [hush-hush]}]}"
    with pytest.raises(UserError) as caught:
        load(AudioExperiment, ["--config", str(write(tmp_path / "c.yaml", text))])
    assert "hush" not in str(caught.value)
