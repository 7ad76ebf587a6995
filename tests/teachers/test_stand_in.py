"""The stand-in is of CLAP's shape, says what it is, and tells music and words apart."""

import subprocess
import sys
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

import midirenderer
import numpy as np
import onnx
import pytest
from music21 import corpus

from etude.audio.decode import decode
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.teachers.clap import Clap
from etude.teachers.clap_text import ClapText
from etude.teachers.stand_in import AUDIO, NOTE, TEXT, TOKENIZER

PIECES = ("bach/bwv66.6", "palestrina/Agnus_01", "schoenberg/opus19/movement2")


@pytest.fixture(scope="module")
def vectors(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The segments' vectors of three pieces, each [n, 512]."""
    teacher, midi = Clap(stand_in / AUDIO), tmp_path_factory.mktemp("pieces") / "piece.mid"
    soundfont = Path(str(distribution("pretty_midi").locate_file("pretty_midi/TimGM6mb.sf2"))).read_bytes()
    found = []
    for piece in PIECES:
        corpus.parse(piece).write("midi", fp=midi)
        audio = decode(bytes(midirenderer.render_wave_from(soundfont, midi.read_bytes())))
        part = type(audio)(audio.samples[: 25 * audio.sample_rate], audio.sample_rate)
        segments = segments_of(len(part.resampled(48_000)), FeatureRecipe())
        found.append(teacher.embed(part, segments).segments)
    return found


def test_no_constant_is_near_to_all_music(vectors: list[np.ndarray]) -> None:
    # The constant that is nearest to unit vectors is their mean, and its cosine is the mean's length.
    assert np.linalg.norm(np.concatenate(vectors).mean(axis=0)) < 0.7


def test_a_piece_is_nearer_to_itself_than_to_others(vectors: list[np.ndarray]) -> None:
    mean = [one.mean(axis=0) / np.linalg.norm(one.mean(axis=0)) for one in vectors]
    for i, one in enumerate(vectors):
        for j in range(len(vectors)):
            assert i == j or (one @ mean[i] > one @ mean[j]).all()


def test_words_are_told_apart(stand_in: Path) -> None:
    found = ClapText(stand_in / TEXT, stand_in / TOKENIZER).embed(["rock", "ROCK", "calm piano", "choir"])
    assert (found @ found.T - np.eye(4) < 0.9).all()


def test_it_says_what_it_is_and_nothing_of_this_machine(stand_in: Path) -> None:
    for name in (AUDIO, TEXT):
        model = onnx.load(stand_in / name)
        assert {one.key: one.value for one in model.metadata_props} == {"note": NOTE}
        assert "random weights" in NOTE
        assert b"site-packages" not in (stand_in / name).read_bytes()
    shape = [
        d.dim_param or d.dim_value
        for d in onnx.load(stand_in / AUDIO).graph.input[0].type.tensor_type.shape.dim
    ]
    assert shape == ["batch", 1, "frames", 64]
    n_weights = sum(int(np.prod(one.dims)) for one in onnx.load(stand_in / AUDIO).graph.initializer)
    assert 0.5e6 < n_weights < 3e6


@pytest.mark.slow
def test_it_is_the_same_every_time(stand_in: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "etude.teachers.stand_in", str(tmp_path)],
        capture_output=True, text=True, timeout=500, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("A stand-in for CLAP with random weights")
    for name in (AUDIO, TEXT, TOKENIZER):
        first, second = ((folder / name).read_bytes() for folder in (stand_in, tmp_path))
        assert sha256(first).digest() == sha256(second).digest(), name
