"""EfficientAT's published weights, by name, from a local file.

The files are those of the project's release page: mn04_as_mAP_432.pt, dymn10_as.pt and so on. Each is a
plain state dict with a classifier of 527 sounds, which a student has no use for. What was trained on AudioSet
(`_as`) expects `input_map: natural_log`.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from etude.errors import UserError
from etude.students.blocks import Backbone
from etude.students.dynamic_mobilenet import DynamicMobileNet
from etude.students.mobilenet import MobileNet
from etude.torch_file import read_torch_file

# The last convolution of each architecture, whose outputs are 960 at width 1, and the configuration's name.
LAST_CONVOLUTION = {"features.16.0.weight": "mobilenet", "out_c.0.weight": "dynamic_mobilenet"}
FEATURES_AT_WIDTH_1 = 960


def load_published(backbone: Backbone, path: Path) -> None:
    """Fill every tensor of a MobileNet or DynamicMobileNet; the file's classifier is left out.

    Raises UserError if the file cannot be read, holds code, is of another architecture or of another width.
    """
    assert isinstance(backbone, MobileNet | DynamicMobileNet)
    state = _read(path)
    wanted = {name: value for name, value in backbone.state_dict().items() if not _is_classifier(name)}
    _check_width(state, backbone, path)
    for name, value in wanted.items():
        if name not in state or state[name].shape != value.shape:
            found = f"has shape {list(state[name].shape)}" if name in state else "is missing"
            raise UserError(
                f"{path} does not fit EfficientAT's {_short(backbone)}: {name}, of shape "
                f"{list(value.shape)}, {found}; take a file as published, with none of its layers changed"
            )
    if unknown := sorted(name for name in state if name not in wanted and not _is_classifier(name)):
        raise UserError(
            f"{path} does not fit EfficientAT's {_short(backbone)}: it holds {unknown[0]}, which that "
            "network has not; take a file as published, with none of its layers changed"
        )
    backbone.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    state = read_torch_file(path, "student.weights", "take the .pt file from EfficientAT's releases")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict of named tensors, as EfficientAT's .pt files do")
    return dict(state)


def _check_width(state: Mapping[str, Tensor], backbone: MobileNet | DynamicMobileNet, path: Path) -> None:
    last = next((name for name in LAST_CONVOLUTION if name in state and state[name].ndim == 4), None)
    if last is None:
        raise UserError(f"{path} holds neither a MobileNet nor a dynamic MobileNet of EfficientAT")
    if last not in backbone.state_dict():
        configured = LAST_CONVOLUTION[next(n for n in LAST_CONVOLUTION if n in backbone.state_dict())]
        raise UserError(
            f"{path} holds a {LAST_CONVOLUTION[last]}, but student.name is {configured}: change either"
        )
    rows = len(state[last])
    if rows != backbone.n_features:
        raise UserError(
            f"{path} has width {rows / FEATURES_AT_WIDTH_1:g}, but student.width gives "
            f"{backbone.n_features / FEATURES_AT_WIDTH_1:g}: set student.width to that of the file"
        )


def _is_classifier(name: str) -> bool:
    return name.startswith("classifier.")


def _short(backbone: MobileNet | DynamicMobileNet) -> str:
    kind = "mn" if isinstance(backbone, MobileNet) else "dymn"
    return f"{kind}{round(10 * backbone.n_features / FEATURES_AT_WIDTH_1):02d}"
