"""LAION's checkpoint through LAION's own network, laid out as theirs and with random weights.

The real checkpoint cannot be had here: what these tests load has its names and shapes, nothing else of it.
"""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.audio.decode import Audio, decode
from etude.audio.recipe import FeatureRecipe
from etude.audio.segment import segments_of
from etude.errors import UserError
from etude.teachers import LaionClapConfig, build_teacher
from etude.teachers.laion_clap import LaionClap, _htsat

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Random tensors by the checkpoint's names. All are windows of one short row, to be small as a file."""
    row = torch.randn(5_000_000, generator=torch.Generator().manual_seed(0)) * 0.05
    htsat = _htsat()
    state = {}
    for place, (name, one) in enumerate(htsat.state_dict().items()):
        window = row[place : place + one.numel()].view(one.shape)
        learnt = one.ndim and one.is_floating_point() and "extractor" not in name and "attn_mask" not in name
        state[f"module.audio_branch.{name}"] = window if learnt else one
    for name in list(state):
        if name.endswith(("running_var", "norm.weight", "norm1.weight", "norm2.weight", "bn0.weight")):
            state[name] = torch.ones_like(state[name])
    for layer, width in (("0", 1024), ("2", 512)):
        state[f"module.audio_projection.{layer}.weight"] = row[: 512 * width].view(512, width)
        state[f"module.audio_projection.{layer}.bias"] = row[:512]
    state["module.text_branch.embeddings.position_ids"] = torch.arange(8)
    return state


@pytest.fixture
def write(state: dict[str, torch.Tensor], tmp_path: Path) -> Write:
    """write(**changes) -> a file laid out as LAION's: the network's tensors beside the training's state."""

    def written(changes: dict[str, Any] | None = None, **beside: Any) -> Path:
        content = {"epoch": 15, "name": "music", "state_dict": state | (changes or {}), **beside}
        torch.save(content, tmp_path / "clap.pt")
        return tmp_path / "clap.pt"

    return written


def test_the_vectors_are_those_of_laions_forward(write: Write, chorale_wav: bytes) -> None:
    """LAION's own forward computes its mel from the waveform, with its own front end."""
    audio = decode(chorale_wav)
    audio = Audio(audio.samples[: 12 * audio.sample_rate], audio.sample_rate)
    segments = segments_of(len(audio.resampled(48_000)), FeatureRecipe())
    teacher = build_teacher(LaionClapConfig(checkpoint=write()))
    assert isinstance(teacher, LaionClap)
    targets = teacher.embed(audio, segments)
    samples = (np.clip(audio.samples, -1, 1) * 32767.0).astype(np.int16) / np.float32(32767.0)
    with torch.inference_mode():
        waveforms = torch.from_numpy(segments.cut(samples, 48_000))
        embedded = teacher._htsat({"waveform": waveforms}, device="cpu")["embedding"]
        expected = torch.nn.functional.normalize(teacher._projection(embedded), dim=-1).numpy()
    assert len(expected) == 2
    assert ((targets.segments * expected).sum(axis=1) > 0.9999).all()
    assert targets.segments[0] @ targets.segments[1] < 0.999999
    mean = expected.mean(axis=0)
    assert targets.track @ (mean / np.linalg.norm(mean)) > 0.9999
    assert (teacher.dim, teacher.normalized, teacher.anchors) == (512, True, None)
    assert teacher.id.startswith("laion_clap-")


class Harmful:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_code_in_a_checkpoint_is_not_executed(write: Write, tmp_path: Path) -> None:
    checkpoint = write(optimizer=Harmful(tmp_path / "executed"))
    with pytest.raises(UserError, match="pickled code, which is never executed"):
        LaionClap(checkpoint)
    assert not (tmp_path / "executed").exists()
    torch.load(checkpoint, weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have been


def test_a_number_of_an_old_numpy_is_no_code(tmp_path: Path) -> None:
    """LAION's file holds its best scores so."""
    torch.save({"state_dict": {}, "best": np.float64(0.9)}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(name, content)
    for name in ("new.pt", "old.pt"):
        with pytest.raises(UserError, match="is no CLAP with HTSAT-base"):  # it was read
            LaionClap(tmp_path / name)


def test_other_checkpoints_are_refused(write: Write, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        LaionClap(tmp_path / "nowhere.pt")
    (tmp_path / "nonsense.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="is damaged, or it holds pickled code"):
        LaionClap(tmp_path / "nonsense.pt")
    name = "module.audio_branch.patch_embed.proj.weight"
    with pytest.raises(UserError, match=r"has \[96, 1, 4, 4\] at audio_branch.patch_embed.proj.weight"):
        LaionClap(write({name: torch.zeros(96, 1, 4, 4)}))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="is no CLAP with HTSAT-base and without fusion: it has nothing at"):
        LaionClap(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="is no CLAP"):
        LaionClap(tmp_path / "list.pt")


def test_a_missing_package_is_reported(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = write()
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.modules", {k: v for k, v in sys.modules.items() if "laion" not in k})
    with pytest.raises(UserError, match=r"pip install --no-deps laion-clap==1\.1\.7 torchlibrosa==0\.1\.0"):
        LaionClap(checkpoint)
