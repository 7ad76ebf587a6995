"""A fusion starts as its specialist, which never changes, and learns what to add to it."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from etude.errors import UserError
from etude.export.onnx import export_onnx, run_onnx, session
from etude.students import BACKBONES, Student, StudentConfig, build_student
from etude.students.fusion import FusionHead, FusionStudent, read_specialist, specialist_config
from etude.systems.base import ExportSpec

DIM = 24
SMALL = {"width": 0.1}


def _mel_db(n_segments: int) -> Tensor:
    return -30 + 20 * torch.randn(n_segments, 64, 96, generator=torch.Generator().manual_seed(1))


def _checkpoint(path: Path, student: Student, config: dict[str, Any]) -> Path:
    """As a training run writes it: the system's state, and the whole configuration as plain values."""
    state = {f"student.{name}": value for name, value in student.state_dict().items()}
    torch.save({"model": state | {"mean": torch.zeros(DIM)}, "config": {"seed": 0, "student": config}}, path)
    return path


@pytest.fixture
def specialist(tmp_path: Path) -> Path:
    """The best.pt of a convnet that has seen a few batches."""
    torch.manual_seed(0)
    config = StudentConfig.model_validate({"name": "convnet", "width": 0.25, "input_map": "none"})
    student = build_student(config, DIM, normalize=True).train()
    student(_mel_db(8))
    return _checkpoint(tmp_path / "best.pt", student, config.model_dump(mode="json"))


def _fused(specialist: Path, *, normalize: bool = True, **settings: Any) -> FusionStudent:
    torch.manual_seed(1)
    config = StudentConfig.model_validate(SMALL | settings | {"specialist": specialist})
    student = build_student(config, DIM, normalize)
    assert isinstance(student, FusionStudent)
    return student


def test_a_specialist_may_have_a_linear_head(tmp_path: Path) -> None:
    config = StudentConfig(name="convnet", width=0.1, head="linear")
    student = build_student(config, DIM, normalize=True)
    path = _checkpoint(tmp_path / "best.pt", student, config.model_dump(mode="json"))
    with torch.no_grad():
        torch.testing.assert_close(_fused(path).eval()(_mel_db(2)), student.eval()(_mel_db(2)))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", BACKBONES)
def test_starts_exactly_as_the_specialist(specialist: Path, name: str, normalize: bool) -> None:
    fused = _fused(specialist, name=name, normalize=normalize).eval()
    fused.start_at(torch.ones(DIM), torch.ones(DIM))
    found = read_specialist(specialist)
    alone = build_student(found.config, DIM, normalize, state=found.state).eval()
    with torch.no_grad():
        torch.testing.assert_close(fused(_mel_db(3)), alone(_mel_db(3)), rtol=0, atol=1e-7)


@pytest.mark.parametrize("normalize", [False, True])
def test_learns_while_the_specialist_stays_as_it_is(specialist: Path, normalize: bool) -> None:
    fused = _fused(specialist, name="tinyclap", normalize=normalize).train()
    before = copy.deepcopy(fused.specialist.state_dict())
    learning = [p for p in fused.parameters() if p.requires_grad]
    assert not any(p.requires_grad for p in fused.specialist.parameters())
    optimizer = torch.optim.AdamW(learning, lr=5e-2)
    mel, losses = _mel_db(6), []
    target = torch.nn.functional.normalize(torch.linspace(-1, 1, DIM), dim=0)
    for _ in range(60):
        loss = (fused(mel) - target).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is None or p.grad.abs().max() < 1e3 for p in learning)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learning)
    assert all(torch.equal(value, before[name]) for name, value in fused.specialist.state_dict().items())
    assert not any(module.training for module in fused.specialist.modules())


def test_gate_decides_how_much_is_added() -> None:
    torch.manual_seed(0)
    head = FusionHead(16, DIM, dropout=0.0, normalize=True).eval()
    torch.nn.init.normal_(head.linear2.weight)
    features, embedding = torch.randn(4, 16), torch.nn.functional.normalize(torch.randn(4, DIM))
    added = torch.nn.functional.normalize(
        head.norm(head.linear2(torch.nn.functional.gelu(head.linear1(features))))
    )
    expected = torch.nn.functional.normalize(embedding + added / (1 + np.exp(3)))
    torch.testing.assert_close(head(features, embedding), expected)
    head.alpha.data.fill_(-100)
    torch.testing.assert_close(head(features, embedding), embedding)


def test_size_is_that_of_the_original() -> None:
    """EdgeNeXt-XS has 192 features: facts/audiomuse.md counts 361,984 parameters for projector and gate."""
    head = FusionHead(192, 512, dropout=0.1, normalize=True)
    assert sum(p.numel() for p in head.parameters()) == 361_984


def test_stage_two_trains_projector_and_gate_only(specialist: Path) -> None:
    fused = _fused(specialist).train()
    fused.freeze_backbone()
    assert [p for p in fused.parameters() if p.requires_grad] == list(fused.head.parameters())
    assert any(parameter is fused.head.alpha for parameter in fused.head.parameters())
    assert not fused.train().backbone.training
    assert fused.head.training


def test_is_built_again_from_its_state_when_the_file_is_gone(specialist: Path) -> None:
    fused = _fused(specialist, name="mobilenet").eval()
    state = fused.state_dict()
    specialist.unlink()
    config = StudentConfig.model_validate(SMALL | {"specialist": specialist})
    again = build_student(config, DIM, normalize=True, state=state).eval()
    torch.testing.assert_close(again(_mel_db(2)), fused(_mel_db(2)), rtol=0, atol=0)
    recorded = specialist_config(state)
    assert recorded is not None
    assert (recorded.name, recorded.width, recorded.input_map) == ("convnet", 0.25, "none")
    with pytest.raises(UserError, match=r"cannot read student\.specialist .*best\.pt"):
        build_student(config, DIM, normalize=True)


def test_state_of_another_student_is_refused(specialist: Path) -> None:
    plain = build_student(StudentConfig(width=0.1), DIM, normalize=True).state_dict()
    fused = StudentConfig.model_validate(SMALL | {"specialist": specialist})
    with pytest.raises(UserError, match="a student without a specialist"):
        build_student(fused, DIM, normalize=True, state=plain)
    with pytest.raises(UserError, match="holds another student than its configuration says"):
        build_student(StudentConfig(width=0.2), DIM, normalize=True, state=plain)


def test_another_dimension_is_refused(specialist: Path) -> None:
    config = StudentConfig.model_validate(SMALL | {"specialist": specialist})
    with pytest.raises(UserError, match=r"gives 24 dimensions, the teacher 512"):
        build_student(config, 512, normalize=True)


def test_fusion_of_a_fusion_is_refused(specialist: Path, tmp_path: Path) -> None:
    fused = _fused(specialist)
    config = StudentConfig.model_validate(SMALL | {"specialist": specialist}).model_dump(mode="json")
    second = _checkpoint(tmp_path / "second.pt", fused, config)
    with pytest.raises(UserError, match="holds a fusion"):
        read_specialist(second)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": {}}, "no checkpoint that says which student it holds"),
        ({"config": {"student": {}}}, "no checkpoint that says which student it holds"),
        ([1], "no checkpoint that says which student it holds"),
        ({"model": {}, "config": {"student": {"name": "phinet"}}}, "does not know .name: "),
        ({"model": {}, "config": {"student": {}}}, "holds no audio student"),
    ],
)
def test_files_that_are_no_specialist_are_refused(tmp_path: Path, content: object, sentence: str) -> None:
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(UserError, match=sentence):
        read_specialist(tmp_path / "best.pt")


def test_damaged_files_and_pickled_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 no more")
    torch.save({"config": Path("a")}, tmp_path / "code.pt")
    with pytest.raises(UserError, match=r"cut\.pt is damaged"):
        read_specialist(tmp_path / "cut.pt")
    with pytest.raises(UserError, match=r"code\.pt is damaged, or it holds pickled code"):
        read_specialist(tmp_path / "code.pt")


def test_onnx_gives_the_same_embeddings_for_any_batch(specialist: Path, tmp_path: Path) -> None:
    fused = _fused(specialist, name="convnet").train()
    torch.nn.init.normal_(fused.head.linear2.weight)
    fused(_mel_db(8))
    fused.eval()
    path = export_onnx(ExportSpec("student", fused, {"mel_spectrogram": _mel_db(2)}), tmp_path)
    opened, mel = session(path), _mel_db(3)
    with torch.no_grad():
        expected = fused(mel).numpy()
    for n in (1, 3):
        found = run_onnx(opened, {"mel_spectrogram": mel[:n].numpy()}, 3)
        np.testing.assert_allclose(found, expected[:n], rtol=0, atol=1e-5)
