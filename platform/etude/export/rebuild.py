"""From a checkpoint back to the experiment that made it; nothing that a checkpoint holds is ever run."""

import logging
import pickle
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from etude.audio.recipe import decoder_version
from etude.config import load
from etude.errors import UserError
from etude.experiments.audio import AudioExperiment
from etude.experiments.base import Experiment, Study
from etude.experiments.emotion import EmotionExperiment
from etude.experiments.library import LibraryExperiment
from etude.experiments.music_text import MusicTextExperiment
from etude.experiments.text import TextExperiment
from etude.experiments.text_projection import TextProjectionExperiment
from etude.export.audio import AudioRelease
from etude.export.emotion import EmotionRelease
from etude.export.music_text import MusicTextRelease
from etude.export.release import Release
from etude.export.text import TextRelease
from etude.export.text_projection import TextProjectionRelease
from etude.storage.files import split
from etude.training.checkpoint import State, load_checkpoint

E = TypeVar("E", bound=Experiment)
SYSTEMS: dict[str, tuple[type[Experiment], Callable[[Any], Release]]] = {
    AudioExperiment.system: (AudioExperiment, AudioRelease),
    TextExperiment.system: (TextExperiment, TextRelease),
    MusicTextExperiment.system: (MusicTextExperiment, MusicTextRelease),
    TextProjectionExperiment.system: (TextProjectionExperiment, TextProjectionRelease),
    EmotionExperiment.system: (EmotionExperiment, EmotionRelease),
}
log = logging.getLogger(__name__)


def find_checkpoint(path: str | Path) -> str:
    """A checkpoint, or the best one of a run's folder, by its address. Raises UserError if there is none."""
    around, name = split(path)
    for file in (name, f"{name}/best.pt"):
        if around.exists(file):
            return around.address(file)
    raise UserError(f"there is no {around.address(name)}: give a checkpoint, or the folder of a run")


def rebuild(checkpoint: str | Path, options: Sequence[str] = ()) -> Release:
    """Open the experiment of a checkpoint; `options` (`--home`, `--config`...) are laid on its configuration.

    Raises UserError if the checkpoint is damaged, holds code, does not say what made it, or was made with
    another recipe, teacher or student than what is here.
    """
    state = _read(checkpoint)
    config, identity, model = (state.get(name) for name in ("config", "identity", "model"))
    if not all(isinstance(one, Mapping) and one for one in (config, identity, model)):
        raise UserError(
            f"{checkpoint} does not say which configuration made it: give one of jobs/train_audio.py, "
            "jobs/train_text.py, jobs/train_music_text.py, jobs/train_projection.py, jobs/train_emotion.py "
            "or a sweep"
        )
    assert config is not None and identity is not None
    if identity.get("system") not in SYSTEMS:
        raise UserError(
            f"{checkpoint} was made by the system {identity.get('system')}, known are {', '.join(SYSTEMS)}: "
            "choose another"
        )
    kind, release = SYSTEMS[identity["system"]]
    settings = _load(kind, config, options).pinned()
    if isinstance(settings, LibraryExperiment) and settings.recipe.decoder != decoder_version():
        raise UserError(
            f"{checkpoint} learned from audio as {settings.recipe.decoder} decodes it, here is "
            f"{decoder_version()}: install those versions, or prepare and train again"
        )
    study = settings.open()
    _check(checkpoint, identity, study)
    return release(study)


def _read(checkpoint: str | Path) -> State:
    try:
        return load_checkpoint(checkpoint)
    except UserError as error:
        cause = error.__cause__
        if isinstance(cause, pickle.UnpicklingError) and "GLOBAL" in str(cause):
            raise UserError(
                f"{checkpoint} holds code, which Étude never runs, where numbers belong: choose another"
            ) from error
        raise UserError(
            f"{checkpoint} is no whole checkpoint of Étude, it is truncated or another file: choose another"
        ) from error


def _load(kind: type[E], config: Mapping[str, Any], options: Sequence[str]) -> E:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(dict(config)).replace("$", "$$"))  # `read_yaml` substitutes names
        return load(kind, ["--config", str(file), *options])


def _check(checkpoint: str | Path, identity: Mapping[str, str], study: Study) -> None:
    for key, here in study.identity().items():
        made_with = identity.get(key)
        if made_with == here:
            continue
        if key == "data":
            log.warning(
                "the library has changed since %s was trained: the figures are those of what is held out now",
                checkpoint,
            )
            continue
        raise UserError(
            f"{checkpoint} was made with {key} {made_with}, here it is {here}: choose another, or leave out "
            "the options that change it"
        )
