"""Two files are used together only if they belong together, and say why if not."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from etude.audio.recipe import FeatureRecipe
from etude.data.batches import open_features
from etude.data.store import Store
from etude.errors import UserError
from etude.evaluation.metrics import unit
from etude.export.onnx import read_metadata, write_metadata
from etude.inference.pair import MUSIC, TEXT, open_pair
from etude.sources import build_source
from tests.support.music_text import export_pair, tokenizer_json, tone, tone_library


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def rewrite(path: Path, **changes: object) -> None:
    record = read_metadata(path) | changes
    write_metadata(path, {key: value for key, value in record.items() if value is not None})


def test_words_and_tracks_lie_in_one_space(exported: Path, tmp_path: Path) -> None:
    pair = open_pair(exported)
    config = tone_library(tmp_path)
    source = build_source(config, tmp_path / "cache")
    rows = open_features(Store(tmp_path / "store"), source.id, pair.recipe)
    music = unit(pair.tracks(rows, tmp_path / "cache"))
    cosines = unit(pair.text(["a low tone", "MID", "very high"])) @ music.T
    titles = [rows[i].track.title for i in cosines.argmax(axis=1)]
    assert titles == ["Low <b>tone", "Mid tone", "High tone"]

    path = tmp_path / "mine.flac"
    path.write_bytes(tone(8000.0))
    heard = unit(pair.file(path)[None])[0]
    assert rows[int((music @ heard).argmax())].track.title == "High tone"
    assert float((music @ heard).max()) == pytest.approx(1.0, abs=1e-4)


def test_a_folder_or_two_named_files(exported: Path, copy: Path) -> None:
    vector = open_pair(exported).text(["low"])
    np.testing.assert_array_equal(open_pair(exported / MUSIC).text(["low"]), vector)
    np.testing.assert_array_equal(open_pair(exported / MUSIC, copy / TEXT).text(["low"]), vector)
    np.testing.assert_array_equal(open_pair(exported, copy).text(["low"]), vector)


def test_files_of_different_runs_are_refused(exported: Path, copy: Path) -> None:
    rewrite(copy / TEXT, space_id="space-b")
    with pytest.raises(UserError, match=r"exported by different runs.*give two files of one export"):
        open_pair(exported / MUSIC, copy / TEXT)
    with pytest.raises(UserError, match="exported by different runs"):
        open_pair(copy)


def test_another_tokenizer_beside_the_text_encoder_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").write_bytes(tokenizer_json(("high", "mid", "low")))
    with pytest.raises(UserError, match="with which it was trained"):
        open_pair(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        open_pair(copy)


def test_what_is_no_half_of_a_pair_is_refused(exported: Path, copy: Path) -> None:
    (copy / "note.onnx").write_text("not a model")
    with pytest.raises(UserError, match=r"cannot read the model .*music_encoder\.onnx"):
        open_pair(copy / "nowhere" / MUSIC)
    with pytest.raises(UserError, match="is not an ONNX file that Étude has exported"):
        open_pair(copy / "note.onnx")
    with pytest.raises(UserError, match=r"takes input_ids, attention_mask: give a music_encoder\.onnx"):
        open_pair(exported / TEXT, exported / TEXT)
    with pytest.raises(UserError, match=r"takes mel_spectrogram: give a text_encoder\.onnx"):
        open_pair(exported / MUSIC, exported / MUSIC)
    rewrite(copy / MUSIC, space_id=None)
    with pytest.raises(UserError, match="belongs to no music-text pair"):
        open_pair(copy)
    bare = onnx.load(exported / MUSIC)
    del bare.metadata_props[:]
    onnx.save(bare, copy / MUSIC)
    with pytest.raises(UserError, match="is not an ONNX file that Étude has exported"):
        open_pair(copy)
    shutil.copy(exported / MUSIC, copy / MUSIC)
    rewrite(copy / MUSIC, recipe={"n_mels": "many"})
    with pytest.raises(UserError, match="does not say which features it takes"):
        open_pair(copy)
    (copy / TEXT).unlink()
    with pytest.raises(UserError, match=r"cannot read the model .*text_encoder\.onnx"):
        open_pair(copy)


@pytest.mark.parametrize("text", ["", "  \t", "\u2028", "\n"])
def test_an_empty_text_is_refused(exported: Path, text: str) -> None:
    with pytest.raises(UserError, match="the query is empty"):
        open_pair(exported).text(["low", text])


def test_a_text_that_no_model_can_take_is_refused(exported: Path) -> None:
    pair = open_pair(exported)
    with pytest.raises(UserError, match="has 13 tokens, the model takes 12: shorten it"):
        pair.text(["low " * 11])
    assert pair.text(["low " * 10]).shape == (1, 8)
    with pytest.raises(UserError, match="no valid text"):
        pair.text(["caf\udce9"])


def test_words_that_the_model_never_saw_are_told(exported: Path) -> None:
    pair = open_pair(exported)
    assert pair.knows("a LOW hum")
    assert not pair.knows("qwertz asdf")
    assert pair.text(["qwertz asdf"]).shape == (1, 8)


def test_a_file_that_cannot_be_heard_is_refused(exported: Path, tmp_path: Path) -> None:
    pair = open_pair(exported)
    with pytest.raises(UserError, match="cannot read"):
        pair.file(tmp_path / "nowhere.mp3")
    (tmp_path / "note.mp3").write_text("no music")
    with pytest.raises(UserError, match=r"cannot be used .*give another file"):
        pair.file(tmp_path / "note.mp3")
    (tmp_path / "short.flac").write_bytes(tone(440.0, 0.1))
    with pytest.raises(UserError, match=r"cannot be used .*give another file"):
        pair.file(tmp_path / "short.flac")


def test_features_of_another_recipe_are_no_library(exported: Path, tmp_path: Path) -> None:
    config = tone_library(tmp_path)
    source_id, store = build_source(config, tmp_path).id, Store(tmp_path / "store")
    assert len(open_features(store, source_id, FeatureRecipe())) == 3
    other = FeatureRecipe(n_mels=64)
    with pytest.raises(UserError, match=f"no track of {source_id} prepared with recipe {other.id}"):
        open_features(store, source_id, other)
