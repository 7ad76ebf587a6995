"""Where pieces with notes, sound and labels come from; each set is one file here, and one line below."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from etude.sources.demo import DemoConfig
from etude.sources.pieces.base import PieceSource
from etude.sources.pieces.deam import DeamConfig, DeamPieces
from etude.sources.pieces.demo import DemoPieces
from etude.sources.pieces.emopia import EmopiaConfig, EmopiaPieces
from etude.sources.pieces.groove import GrooveConfig, GroovePieces
from etude.sources.pieces.labelled import LabelledConfig, LabelledPieces
from etude.sources.pieces.lakh import LakhConfig, LakhPieces
from etude.sources.pieces.maestro import MaestroConfig, MaestroPieces
from etude.sources.pieces.pmemo import PmemoConfig, PmemoPieces
from etude.sources.pieces.vgmidi import VgmidiConfig, VgmidiPieces

__all__ = [
    "DeamConfig",
    "DemoConfig",
    "EmopiaConfig",
    "GrooveConfig",
    "LabelledConfig",
    "LakhConfig",
    "MaestroConfig",
    "PieceSource",
    "PieceSourceConfig",
    "PmemoConfig",
    "VgmidiConfig",
    "build_piece_source",
]

PieceSourceConfig = Annotated[
    DemoConfig
    | LabelledConfig
    | DeamConfig
    | PmemoConfig
    | EmopiaConfig
    | VgmidiConfig
    | LakhConfig
    | MaestroConfig
    | GrooveConfig,
    Field(discriminator="name"),
]


def build_piece_source(config: PieceSourceConfig, cache: Path) -> PieceSource:
    """The source that a configuration names; `cache` is a folder for what is made first."""
    match config:
        case DemoConfig():
            return DemoPieces(config, cache)
        case LabelledConfig():
            return LabelledPieces(config)
        case DeamConfig():
            return DeamPieces(config)
        case PmemoConfig():
            return PmemoPieces(config)
        case EmopiaConfig():
            return EmopiaPieces(config)
        case VgmidiConfig():
            return VgmidiPieces(config)
        case LakhConfig():
            return LakhPieces(config)
        case MaestroConfig():
            return MaestroPieces(config)
        case GrooveConfig():
            return GroovePieces(config)
