"""Made-up pieces, to try the whole path without music; labelled `synthetic` wherever they go.

Upstream's were drawn without regard to their emotion, so that nothing could be learned of them
(facts/projection_and_emotion.md, b). Here every number is a smooth function of the emotion, and some noise.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from etude.data.emotion import AnalysisConfig, EmotionRow, table_of
from etude.data.store import Store
from etude.emotion.chords import CHORDS
from etude.emotion.expression import EXPRESSION
from etude.emotion.thesaurus import thesaurus
from etude.emotion.vad import VAD
from etude.sources.base import Track

LABEL = "synthetic"
NOISE = 0.1
_SHARD = 256


def write_synthetic(store: Store, source_id: str, config: AnalysisConfig, n: int) -> None:
    """Write n made-up pieces; the same n are the same pieces."""
    rows = [synthetic_row(number, f"{source_id}-{number:05d}") for number in range(n)]
    licence = rows[0].license
    tracks = [Track(row.track_id, row.track_id, row.title, license=licence) for row in rows]
    store.write_catalogue(source_id, tracks)
    for start in range(0, n, _SHARD):
        store.write_shard(config.part, table_of(rows[start : start + _SHARD]))


def synthetic_row(number: int, track_id: str) -> EmotionRow:
    """One piece near a node of the thesaurus."""
    generator = np.random.default_rng(number)
    weights = np.random.default_rng(0)  # the same for all pieces: what there is to be learned
    node = int(generator.integers(len(thesaurus().nodes)))
    vad = thesaurus().vad_N4[node]

    def response(size: int) -> NDArray[np.float32]:
        noise = NOISE * generator.standard_normal(size)
        return np.asarray(vad @ weights.standard_normal((4, size)) + noise, dtype=np.float32)

    melody, chord_weight = np.exp(2 * response(128)), np.exp(2 * response(len(CHORDS)).astype(np.float64))
    expression, groove = (expit(response(size)) for size in (len(EXPRESSION), 32))
    return EmotionRow(
        track_id, f"made-up piece {number}", track_id, "none: made up", LABEL, VAD(*map(float, vad)), node,
        audio=np.stack([response(128) for _ in range(1)]),
        melody=melody / melody.sum(),
        chords=generator.choice(len(CHORDS), size=12, p=chord_weight / chord_weight.sum()),
        expression=expression,
        groove=groove,
    )  # fmt: skip
