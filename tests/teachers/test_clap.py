"""A CLAP file as a teacher, against AudioMuse-AI's serving path written anew with librosa.

No CLAP weights can be had here: the file is the stand-in, of CLAP's shape and with random weights.
"""

import json
import pickle
from pathlib import Path

import librosa
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from etude.audio.decode import Audio, decode
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import Segments, segments_of
from etude.errors import BadAudio, UserError
from etude.teachers import ClapConfig, Teacher, build_teacher
from etude.teachers.clap import RECIPE, Clap, clap_mel, track_vector, units
from etude.teachers.clap_text import ClapText
from etude.teachers.stand_in import AUDIO, TEXT, TOKENIZER

RATE = 48_000


@pytest.fixture(scope="module")
def chorale(chorale_wav: bytes) -> Audio:
    """23 s of music, and so loud that some of it is clipped."""
    audio = decode(chorale_wav)
    return Audio(audio.samples * 8.0, audio.sample_rate)


@pytest.fixture(scope="module")
def teacher(stand_in: Path) -> Clap:
    return Clap(stand_in / AUDIO)


def start(audio: Audio, duration_s: float) -> tuple[Audio, Segments]:
    """The first seconds, and their segments as the platform cuts them for a student."""
    part = Audio(audio.samples[: round(duration_s * audio.sample_rate)], audio.sample_rate)
    return part, segments_of(len(part.resampled(RATE)), FeatureRecipe())


def served_mels(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What AudioMuse-AI hands to CLAP, segment by segment: [1, 1, frames, 64] (facts/audiomuse.md, b)."""
    quantised = (np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    samples = (quantised / 32767.0).astype(np.float32)
    length, hop = 480_000, 240_000
    if len(samples) <= length:
        pieces = [np.pad(samples, (0, length - len(samples)))]
    else:
        pieces = []
        begin = 0
        while begin + length <= len(samples):
            pieces.append(samples[begin : begin + length])
            begin += hop
        if begin < len(samples):
            pieces.append(samples[-length:])
    mels = []
    for piece in pieces:
        power = librosa.feature.melspectrogram(
            y=piece, sr=RATE, n_fft=1024, hop_length=480, win_length=1024, window="hann", center=True,
            pad_mode="reflect", power=2.0, n_mels=64, fmin=50, fmax=14_000,
        )  # fmt: skip
        decibels = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
        mels.append(decibels.T[None, None].astype(np.float32))
    return mels


def served(model: Path, samples: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The segments' vectors as AudioMuse-AI computes them, and the track's."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    vectors = [session.run(None, {"mel_spectrogram": mel})[0][0] for mel in served_mels(samples)]
    mean = np.mean(vectors, axis=0)
    return np.array(vectors), mean / (np.linalg.norm(mean) + 1e-9)


@pytest.mark.parametrize("duration_s", [3.0, 10.0, 10.5, 23.1])
def test_training_hears_what_serving_hears(
    teacher: Clap, stand_in: Path, chorale: Audio, duration_s: float
) -> None:
    audio, segments = start(chorale, duration_s)
    mel, expected_mels = clap_mel(audio, segments), served_mels(audio.samples)
    assert len(mel) == len(expected_mels) == len(segments)
    for i, expected in enumerate(expected_mels):
        np.testing.assert_allclose(mel.segment(i).T, expected[0, 0], atol=5e-3)  # dB
    targets = teacher.embed(audio, segments)
    vectors, track = served(stand_in / AUDIO, audio.samples)
    assert ((targets.segments * vectors).sum(axis=1) > 0.99999).all()
    assert targets.track @ track > 0.99999
    np.testing.assert_allclose(np.linalg.norm(targets.segments, axis=1), 1.0, atol=1e-6)
    assert targets.segments.dtype == targets.track.dtype == np.float32


def test_another_rate_is_resampled_first(teacher: Clap, stand_in: Path, chorale: Audio) -> None:
    slow = Audio(librosa.resample(chorale.samples, orig_sr=RATE, target_sr=44_100), 44_100)
    targets = teacher.embed(slow, segments_of(len(slow.resampled(RATE)), FeatureRecipe()))
    again = librosa.resample(slow.samples, orig_sr=44_100, target_sr=RATE, res_type="soxr_hq")
    assert targets.track @ served(stand_in / AUDIO, again)[1] > 0.99999


def test_a_batch_changes_nothing_in_a_file_that_keeps_items_apart(
    teacher: Clap, stand_in: Path, chorale: Audio
) -> None:
    audio, segments = start(chorale, 23.0)
    alone, together = teacher.embed(audio, segments), Clap(stand_in / AUDIO, 3).embed(audio, segments)
    np.testing.assert_allclose(alone.segments, together.segments, atol=1e-4)


def test_the_configuration_builds_it(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stand_in)
    config = ClapConfig(model=Path(AUDIO))
    assert config.model == stand_in / AUDIO
    teacher: Teacher = build_teacher(config)
    assert (teacher.dim, teacher.normalized, teacher.anchors) == (512, True, None)
    assert teacher.id == build_teacher(config).id
    assert teacher.id.startswith("clap-")


def test_another_file_has_another_id(teacher: Clap, stand_in: Path, tmp_path: Path) -> None:
    model = onnx.load(stand_in / AUDIO)
    onnx.save(
        model, tmp_path / AUDIO, save_as_external_data=True, location="weights.data", size_threshold=1024
    )
    outside = Clap(tmp_path / AUDIO).id
    assert outside != teacher.id
    weights = bytearray((tmp_path / "weights.data").read_bytes())
    weights[1000] ^= 1
    (tmp_path / "weights.data").write_bytes(weights)
    assert Clap(tmp_path / AUDIO).id != outside


def test_it_travels_to_other_processes(teacher: Clap, chorale: Audio) -> None:
    arrived = pickle.loads(pickle.dumps(teacher))
    audio, segments = start(chorale, 5.0)
    np.testing.assert_array_equal(arrived.embed(audio, segments).track, teacher.embed(audio, segments).track)


def test_other_segments_are_refused(teacher: Clap, chorale: Audio) -> None:
    with pytest.raises(UserError, match="not segments of 240000 at 48000 Hz"):
        teacher.embed(chorale, Segments((0,), 240_000, RATE))


def test_vectors_without_direction_are_bad_audio() -> None:
    for bad in ([[0.0, 0.0]], [[np.nan, 1.0]], [[np.inf, 1.0]]):
        with pytest.raises(BadAudio, match="zero, or not finite"):
            units(np.array(bad, np.float32))
    with pytest.raises(BadAudio):
        track_vector(np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32))


def test_anchors_are_the_terms_vectors(stand_in: Path, tmp_path: Path) -> None:
    terms = tmp_path / "terms.json"
    terms.write_text(json.dumps({"Genre_Style": ["rock", "Jazz"], "Voice_Type": ["choir", "rock"]}))
    files = {"text_model": stand_in / TEXT, "tokenizer": stand_in / TOKENIZER, "anchors": terms}
    anchors = build_teacher(ClapConfig(model=stand_in / AUDIO, **files)).anchors
    expected = ClapText(stand_in / TEXT, stand_in / TOKENIZER).embed(["rock", "Jazz", "choir"])
    np.testing.assert_array_equal(anchors, expected)
    del files["anchors"]
    own = build_teacher(ClapConfig(model=stand_in / AUDIO, **files)).anchors
    assert own is not None
    assert len(own) > 50  # Étude's own terms
    with pytest.raises(ValueError, match="set text_model and tokenizer too"):
        ClapConfig(model=stand_in / AUDIO, anchors=terms)
    with pytest.raises(ValueError, match="set both or neither"):
        ClapConfig(model=stand_in / AUDIO, text_model=stand_in / TEXT)


def test_bad_terms_are_refused(stand_in: Path, tmp_path: Path) -> None:
    config = ClapConfig(
        model=stand_in / AUDIO,
        anchors=tmp_path / "terms.json",
        text_model=stand_in / TEXT,
        tokenizer=stand_in,
    )
    with pytest.raises(UserError, match="cannot read the query terms"):
        _ = build_teacher(config).anchors
    (tmp_path / "terms.json").write_text("{}")
    with pytest.raises(UserError, match=r"terms\.json holds no categories"):
        _ = build_teacher(config).anchors


def other_file(path: Path, width: int = 64, dim: int = 512, frames: int | str = "frames") -> Path:
    """A file of nearly CLAP's shape: the mean over the frames, times a matrix."""
    nodes = [
        helper.make_node("ReduceMean", ["mel_spectrogram", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
    ]
    shapes = ("mel_spectrogram", ["batch", 1, frames, width]), ("embedding", ["batch", dim])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    tensors = [
        numpy_helper.from_array(np.ones((width, dim), np.float32), "weights"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
    ]
    graph = helper.make_graph(nodes, "other", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_what_is_no_clap_is_refused(stand_in: Path, tmp_path: Path) -> None:
    (tmp_path / "nonsense.onnx").write_bytes(b"nonsense")
    refused = {
        tmp_path / "nowhere.onnx": "there is no file",
        tmp_path / "nonsense.onnx": "cannot be opened as an ONNX file",
        stand_in / TEXT: r"takes input_ids \[batch, 77\], attention_mask .* not mel_spectrogram",
        other_file(tmp_path / "wide.onnx", width=128): r"not mel_spectrogram \[batch, 1, frames, 64\]",
        other_file(tmp_path / "narrow.onnx", dim=256): r"gives \[1, 256\] for a batch of 1, not \[1, 512\]",
        other_file(
            tmp_path / "long.onnx", frames=1501
        ): r"cannot be run on mel_spectrogram \[1, 1, 1001, 64\]",
    }
    for path, said in refused.items():
        with pytest.raises(UserError, match=said) as caught:
            Clap(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_no_gpu_is_said_before_anything_runs(stand_in: Path) -> None:
    assert "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    with pytest.raises(UserError, match="knows no CUDA; install onnxruntime-gpu"):
        Clap(stand_in / AUDIO, device="cuda")


def test_the_recipe_is_claps() -> None:
    assert (RECIPE.n_fft, RECIPE.hop_length, RECIPE.n_mels) == (1024, 480, 64)
    assert (RECIPE.fmin, RECIPE.fmax, RECIPE.floor_db, RECIPE.n_frames) == (50.0, 14_000.0, -100.0, 1001)
