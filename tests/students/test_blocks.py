"""Activations computed twice instead of kept change nothing but memory."""

import copy

import pytest
import torch
from torch import Tensor

from etude.students import BACKBONES, Student, StudentConfig, build_student


def _mel_db(n_segments: int = 4) -> Tensor:
    return -30 + 20 * torch.randn(n_segments, 64, 64, generator=torch.Generator().manual_seed(1))


def _twins(name: str) -> tuple[Student, Student]:
    """One student that keeps its activations, one that computes them again, otherwise the same."""
    torch.manual_seed(0)
    settings = {"name": name, "width": 0.1, "dropout": 0.0}
    again = build_student(
        StudentConfig.model_validate(settings | {"recompute_activations": True}), 16, normalize=False
    )
    kept = build_student(StudentConfig.model_validate(settings), 16, False, state=again.state_dict())
    return kept.train(), again.train()


def _step(student: Student) -> tuple[Tensor, int]:
    """Loss and its gradients into the parameters; how many bytes autograd kept for that."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = student(_mel_db()).square().mean()
        n_bytes = sum(kept.values())  # before the gradient, whose second computation keeps things too
        loss.backward()
    return loss, n_bytes


@pytest.mark.parametrize("name", BACKBONES)
def test_loss_gradients_and_running_statistics_are_the_same(name: str) -> None:
    kept, again = _twins(name)
    for _ in range(2):
        (expected, more), (loss, less) = _step(kept), _step(again)
        assert less < 0.8 * more
        torch.testing.assert_close(loss, expected, rtol=0, atol=0)
    gradients = zip(kept.named_parameters(), again.parameters(), strict=True)
    for (parameter_name, parameter), other in gradients:
        torch.testing.assert_close(other.grad, parameter.grad, rtol=1e-4, atol=1e-7, msg=parameter_name)
    state = kept.state_dict()
    assert any(key.endswith("running_var") for key in state)
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())


def test_frozen_statistics_stay_frozen_and_training_goes_on_afterwards() -> None:
    _, student = _twins("mobilenet")
    student.freeze_backbone()
    before = copy.deepcopy(student.backbone.state_dict())
    _step(student)
    assert all(torch.equal(v, before[key]) for key, v in student.backbone.state_dict().items())
    _, student = _twins("mobilenet")
    _step(student)
    norm = student.backbone.features[0][1]
    assert (norm.momentum, norm.num_batches_tracked) == (0.3, 1)


def test_evaluation_is_not_touched() -> None:
    kept, again = _twins("convnet")
    with torch.no_grad():
        assert torch.equal(again.eval()(_mel_db()), kept.eval()(_mel_db()))
