"""Small networks that learn. A new architecture is one file and one line in `BACKBONES`."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from etude.errors import UserError
from etude.students.blocks import Backbone
from etude.students.config import StudentConfig
from etude.students.convnet import convnet
from etude.students.dynamic_mobilenet import dynamic_mobilenet
from etude.students.fusion import FusionStudent, Specialist, read_specialist, specialist_config
from etude.students.head import POOLED_VARIANCE, BatchNormHead, LinearHead, ProjectionHead
from etude.students.mobilenet import mobilenet
from etude.students.published import load_published
from etude.students.student import Student
from etude.students.tinyclap import tinyclap

__all__ = ["BACKBONES", "Student", "StudentConfig", "build_student", "read_specialist"]

BACKBONES: dict[str, Callable[[float], Backbone]] = {
    "mobilenet": mobilenet,
    "dynamic_mobilenet": dynamic_mobilenet,
    "tinyclap": tinyclap,
    "convnet": convnet,
}


def build_student(
    config: StudentConfig, dim: int, normalize: bool, *, state: Mapping[str, Tensor] | None = None
) -> Student:
    """A new student; `torch.manual_seed` before it decides its weights.

    Published weights and a specialist are read from their files. With `state`, a student's state dict from a
    checkpoint, it is that student again, and no file is needed. Raises UserError if a file cannot be read or
    does not fit, or if `state` is of another student.
    """
    backbone = BACKBONES[config.name](config.width)
    backbone.recompute_activations = config.recompute_activations
    if config.weights and state is None:
        load_published(backbone, config.weights)
    student: Student
    if config.specialist:
        specialist = read_specialist(config.specialist) if state is None else _recorded(state, dim)
        student = _fused(backbone, config, specialist, dim, normalize)
    else:
        head = _head(config, backbone.n_features, dim, normalize)
        student = Student(backbone, head, config.input_map, config.frame_stride)
    if state is not None:
        _load(student, state)
    return student


def _head(config: StudentConfig, n_features: int, dim: int, normalize: bool) -> nn.Module:
    if config.head == "linear":
        return LinearHead(
            n_features, dim, dropout=config.dropout, normalize=normalize, variance=POOLED_VARIANCE
        )
    heads = BatchNormHead if config.name == "tinyclap" else ProjectionHead
    return heads(n_features, dim, dropout=config.dropout, normalize=normalize)


def _recorded(state: Mapping[str, Tensor], dim: int) -> Specialist:
    config = specialist_config(state)
    if config is None:
        raise UserError(
            "the checkpoint holds a student without a specialist, its configuration names one: configure the "
            "student that it holds, or train anew"
        )
    prefix = "specialist."
    tensors = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
    return Specialist(config, tensors, dim, {})


def _fused(
    backbone: Backbone, config: StudentConfig, specialist: Specialist, dim: int, normalize: bool
) -> FusionStudent:
    if specialist.dim != dim:
        raise UserError(
            f"the specialist {config.specialist} gives {specialist.dim} dimensions, the teacher {dim}: give "
            "one that was trained with this teacher"
        )
    trained = build_student(specialist.config, dim, normalize, state=specialist.state)
    return FusionStudent(backbone, trained, config, specialist.config, dim, normalize)


def _load(student: Student, state: Mapping[str, Tensor]) -> None:
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"the checkpoint holds another student than its configuration says ({_first(error)}): configure "
            "the student that it holds, or train anew"
        ) from error


def _first(error: RuntimeError) -> str:
    return str(error).splitlines()[1].strip().rstrip(".:")
