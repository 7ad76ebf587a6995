"""Whole students: what a configuration builds, how it starts, and that it leaves as ONNX unchanged."""

import math
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from etude.students import BACKBONES, Student, StudentConfig, build_student
from etude.students.cost import count

N_MELS, N_FRAMES = 128, 1001


def _student(name: str = "mobilenet", *, normalize: bool = False, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    return build_student(StudentConfig.model_validate({"name": name, "width": 0.1}), 200, normalize).eval()


def _experienced(student: Student) -> Student:
    """With batch statistics of its own: without, a deep network's features shrink to rounding noise."""
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        student.train()(_mel_db(3, 300))
    return student.eval()


def _mel_db(n_segments: int, n_frames: int = N_FRAMES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return -30 + 20 * torch.randn(n_segments, N_MELS, n_frames, generator=generator)


def test_every_architecture_can_be_chosen() -> None:
    assert set(get_args(StudentConfig.model_fields["name"].annotation)) == set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("normalize", [False, True])
def test_embeddings_have_the_teachers_form(name: str, normalize: bool) -> None:
    embedding = _student(name, normalize=normalize)(_mel_db(2, 300))
    assert embedding.shape == (2, 200)
    assert (embedding.norm(dim=1) - 1).abs().max().item() < 1e-5 or not normalize


@pytest.mark.parametrize("name", BACKBONES)
def test_a_seed_decides_the_weights(name: str) -> None:
    first, same, other = (_student(name, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_segment_does_not_depend_on_its_batch(name: str) -> None:
    student, mel = _student(name), _mel_db(3, 300)
    with torch.no_grad():
        together, alone = student(mel), torch.cat([student(row[None]) for row in mel])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_all_weights_learn_and_a_batch_can_be_learnt(name: str) -> None:
    student, mel = _student(name).train(), _mel_db(4, 64)
    target = torch.randn(4, 200, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = (student(mel) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert losses[-1] < 0.5 * losses[0]


def test_input_map_is_natural_log_in_the_published_range() -> None:
    power = torch.tensor([1e-10, 1e-3, 1.0, 40.0])
    seen: list[torch.Tensor] = []
    for input_map in ("natural_log", "none"):
        student = build_student(
            StudentConfig.model_validate({"input_map": input_map, "width": 0.1}), 8, False
        )
        student.backbone.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
        student.eval()(10 * power.log10().view(1, 4, 1).expand(1, 4, 32))
    torch.testing.assert_close(seen[0][0, :, 0], (power.log() + 4.5) / 5)
    torch.testing.assert_close(seen[1][0, :, 0], 10 * power.log10())
    assert seen[0][0, 2, 0].item() == pytest.approx(0.9)
    assert seen[0][0, 0, 0].item() == pytest.approx((-10 * math.log(10) + 4.5) / 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"widht": 0.4},
        {"width": 0.01},
        {"width": 5},
        {"name": "resnet"},
        {"dropout": 1.0},
        {"input_map": "db"},
        {"weights": "mn04.pt", "name": "tinyclap"},
        {"weights": "mn04.pt", "name": "convnet"},
        {"head": "linear", "name": "tinyclap"},
        {"head": "linear", "specialist": "best.pt"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        StudentConfig.model_validate(wrong)


@pytest.mark.parametrize(
    ("name", "normalize"),
    [
        pytest.param("mobilenet", False, marks=pytest.mark.slow),
        pytest.param("dynamic_mobilenet", True, marks=pytest.mark.slow),
        pytest.param("tinyclap", True, marks=pytest.mark.slow),
        ("convnet", True),
    ],
)
def test_onnx_gives_the_same_embeddings_for_any_batch(tmp_path: Path, name: str, normalize: bool) -> None:
    student, path = _experienced(_student(name, normalize=normalize)), tmp_path / "student.onnx"
    program = torch.onnx.export(
        student,
        (_mel_db(2),),
        dynamo=True,
        external_data=False,
        opset_version=18,
        input_names=["mel_spectrogram"],
        output_names=["embedding"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.save(path, external_data=False)
    assert [file.name for file in tmp_path.iterdir()] == ["student.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n_segments in (1, 3):
        mel = _mel_db(n_segments)
        (embedding,) = session.run(["embedding"], {"mel_spectrogram": mel.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(embedding, student(mel).numpy(), rtol=0, atol=1e-4)


def test_frame_stride_costs_less_and_hears_the_same_shape() -> None:
    plain, strided = (
        build_student(StudentConfig(width=0.1, frame_stride=stride), 200, normalize=False)
        for stride in (1, 4)
    )
    mel = torch.randn(2, 128, 1001) * 10 - 40
    assert strided(mel).shape == plain(mel).shape
    assert count(strided, torch.empty(1, 128, 1001)).macs < 0.3 * count(plain, torch.empty(1, 128, 1001)).macs
    held = mel[:, :, :1000].unflatten(2, (250, 4)).mean(3).repeat_interleave(4, dim=2)
    torch.testing.assert_close(strided.eval()(mel), strided(held))


def test_paths_are_absolute_and_survive_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = StudentConfig.model_validate({"weights": "mn04.pt", "specialist": "~/best.pt"})
    assert (config.weights, config.specialist) == (tmp_path / "mn04.pt", tmp_path / "home" / "best.pt")
    assert StudentConfig.model_validate_json(config.model_dump_json()) == config
    assert StudentConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", BACKBONES)
def test_student_starts_at_the_teachers_mean(name: str) -> None:
    student, mean = _student(name).train(), torch.linspace(-3, 5, 200)
    student.start_at(mean, torch.zeros(200))
    torch.testing.assert_close(student(_mel_db(2, 64)), mean.expand(2, 200))


def test_the_encoder_of_seed_1_is_there() -> None:
    """Three convolutions, a mean over the whole map, one map to 256 numbers, length 1."""
    config = StudentConfig(name="convnet", width=1.0, head="linear")
    student = build_student(config, 256, normalize=True)
    matrices = [tuple(p.shape) for p in student.parameters() if p.ndim > 1]
    assert matrices == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64, 3, 3), (256, 128)]
    torch.testing.assert_close(student(_mel_db(3)).norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", ["mobilenet", "dynamic_mobilenet", "convnet"])
def test_a_linear_head_starts_about_where_it_is_told(name: str) -> None:
    torch.manual_seed(0)
    config = StudentConfig.model_validate({"name": name, "width": 0.2, "head": "linear", "dropout": 0})
    student, mean = build_student(config, 200, normalize=False).train(), torch.linspace(-3, 5, 200)
    student.start_at(mean, torch.ones(200))
    torch.testing.assert_close(student(_mel_db(16, 64)).mean(dim=0), mean, atol=1.0, rtol=0)
    student.start_at(mean, torch.zeros(200))
    torch.testing.assert_close(student(_mel_db(2, 64)), mean.expand(2, 200))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_frozen_backbone_stays_as_it_is_while_the_head_learns(name: str) -> None:
    student = _student(name)
    student.freeze_backbone()
    student.train()
    before = {key: value.clone() for key, value in student.state_dict().items()}
    optimizer = torch.optim.AdamW(student.head.parameters(), lr=1e-2)
    student(_mel_db(4, 64)).square().sum().backward()
    optimizer.step()
    assert not any(module.training for module in student.backbone.modules())
    assert student.head.training
    assert all(p.grad is None for p in student.backbone.parameters())
    changed = {key for key, value in student.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("head.") for key in changed)
    assert not student.eval().head.training
