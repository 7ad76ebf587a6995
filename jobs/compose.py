"""Write a short piece in an emotion, as MIDI and as sound, by the five exported emotion models.

    python jobs/compose.py --node joy/elation/mild        category, kind and level; or the number of a node
    python jobs/compose.py --audio song.mp3               in the emotion that the recogniser hears
    python jobs/compose.py --node sad/grief/strong --bars 32 --seed 7 --output ~/pieces

All keys: --help.
"""

import sys
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from etude.cli import guarded, say
from etude.config import Settings, default_home, load
from etude.emotion.thesaurus import thesaurus
from etude.emotion.thesaurus_json import read_thesaurus
from etude.emotion.vad import VAD
from etude.errors import BadAudio, UserError
from etude.export.emotion import MODELS
from etude.inference.compose import compose
from etude.inference.emotion_models import EmotionModels
from etude.sources.demo import render


class Compose(Settings):
    """Write a piece in an emotion."""

    home: Path = Field(default_factory=default_home, description="where all that is made lies")
    node: str | None = Field(None, description="an emotion of the thesaurus")
    audio: Path | None = Field(None, description="a music file whose emotion is taken")
    thesaurus: Path | None = Field(
        None, description="a thesaurus.json, also upstream's, in which the node is found; usually our own"
    )
    models: Path | None = Field(None, description="a folder with the five files; usually the newest")
    output: Path | None = Field(None, description="a folder for the piece; usually compositions/ below home")
    bars: int = Field(16, ge=1, le=128)
    seed: int = Field(0, ge=0, description="another piece in the same emotion")
    tonic: int = Field(0, ge=0, le=11, description="pitch class of the key, 0 is C")

    @model_validator(mode="after")
    def _one(self) -> "Compose":
        if (self.node is None) == (self.audio is None):
            raise ValueError("give either --node or --audio")
        return self


def main(argv: list[str]) -> int:
    settings = load(Compose, argv)
    newest = settings.home / "exports" / "emotion" / MODELS
    models = EmotionModels(settings.models.expanduser() if settings.models else newest)
    if settings.node is not None:
        known = read_thesaurus(settings.thesaurus.expanduser()) if settings.thesaurus else thesaurus()
        node = known.find(settings.node)
        vad = node.vad
    else:
        assert settings.audio is not None
        vad = _heard(models, settings.audio.expanduser())
        node = thesaurus().nodes[int(thesaurus().nearest(np.array([vad]))[0, 0])]
        say(f"{settings.audio.name} sounds like {node.path}")
    piece = compose(models, vad, bars=settings.bars, seed=settings.seed, tonic=settings.tonic)
    folder = (settings.output or settings.home / "compositions").expanduser()
    stem = folder / f"{node.path.replace('/', '-')}-{settings.seed}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".mid").write_bytes(piece.midi)
        stem.with_suffix(".flac").write_bytes(render(piece.midi, piece.duration_s))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; name another --output") from None
    say(
        f"{node.path}: valence {vad.valence:+.2f}, arousal {vad.arousal:.2f}, dominance {vad.dominance:.2f}, "
        f"intensity {vad.intensity:.2f}\n{settings.bars} bars, {piece.tempo_bpm:.0f} beats a minute: "
        f"{' '.join(piece.chords[:16])}\n{stem}.mid\n{stem}.flac"
    )
    return 0


def _heard(models: EmotionModels, path: Path) -> VAD:
    try:
        return models.hear(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a music file") from None
    except BadAudio as error:
        raise UserError(f"{path} cannot be heard: {error}; give another file") from None


if __name__ == "__main__":
    sys.exit(guarded(main)(sys.argv[1:]))
