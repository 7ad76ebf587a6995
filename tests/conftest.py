"""Real music for every test: a Bach chorale, rendered once a session."""

from importlib.metadata import distribution
from pathlib import Path

import midirenderer
import pytest
from music21 import corpus


@pytest.fixture(scope="session")
def chorale_wav(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """BWV 66.6 as a WAV file: 23 s, stereo, 48 kHz, 16 bits, peak 0.14."""
    midi = tmp_path_factory.mktemp("chorale") / "bwv66.6.mid"
    corpus.parse("bach/bwv66.6").write("midi", fp=midi)
    # Its file is wanted, not the package, whose import needs more packages.
    soundfont = Path(str(distribution("pretty_midi").locate_file("pretty_midi/TimGM6mb.sf2")))
    return bytes(midirenderer.render_wave_from(soundfont.read_bytes(), midi.read_bytes()))
