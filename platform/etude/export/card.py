"""The model card: what a file is, what it learned from, how good it is, under which licences."""

from collections import Counter
from collections.abc import Mapping

from etude.data.batches import Splits
from etude.evaluation.metrics import Metrics, shown
from etude.export.parity import Parity


def licenses(splits: Splits) -> dict[str, int]:
    """How many tracks of each licence a student learned from."""
    return dict(Counter(row.track.license for row in splits.train).most_common())


def card(
    name: str,
    metadata: Mapping[str, object],
    test: Metrics,
    parity: Mapping[str, Parity],
    splits: Splits,
) -> str:
    """Markdown with the front matter that model hubs read."""
    agreement = "\n".join(
        f"| `{form}` | {p.n_segments} | {p.min_cosine:.6f} | {p.max_difference:.1e} |"
        for form, p in parity.items()
    )
    learned = "\n".join(f"- {count} tracks: {license_}" for license_, count in licenses(splits).items())
    return f"""---
library_name: onnx
pipeline_tag: feature-extraction
tags: [music, audio-embedding, distillation]
---
# {name}

A student of `{metadata["teacher"]}` for 10 s of music, {metadata["parameters"]:,} parameters,
{int(str(metadata["macs"])) / 1e6:.0f} million multiply-adds.

| file | input | output |
|---|---|---|
| `student.onnx` | `mel_spectrogram` (batch, 1, 128, 1001) in dB | `embedding` |
| `student_waveform.onnx` | `waveform` (batch, 480000), mono, 48 kHz, -1..1 | `embedding` |

Each file holds its recipe (`{metadata["recipe_id"]}`), teacher, data hash and figures under the metadata
key `etude`.

## Figures on {test.n_tracks:.0f} held-out tracks ({test.n_segments:.0f} segments)

| figure | student | doing nothing |
|---|---|---|
| cosine to the teacher | {shown(test.cosine, 4)} | {shown(test.constant_cosine, 4)} (best constant) |
| skill (0 = constant, 1 = teacher) | {shown(test.skill)} | 0 |
| cosine of whole tracks | {shown(test.track_cosine, 4)} | {shown(test.track_constant_cosine, 4)} |
| overlap of 10 nearest neighbours | {shown(test.overlap)} | {shown(test.overlap_chance)} (chance) |

## Agreement of the files with PyTorch on real audio

| form | segments | least cosine | largest difference |
|---|---|---|---|
{agreement}

## Licences

- the teacher's weights: {metadata["teacher_license"]}
{learned}
"""
