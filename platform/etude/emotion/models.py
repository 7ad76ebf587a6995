"""The five models by name, and as what files the plug-in knows them (facts/projection_and_emotion.md, b)."""

from typing import Literal

Model = Literal["recognizer", "melody", "harmony", "dynamics", "groove"]
MODELS: tuple[Model, ...] = ("recognizer", "melody", "harmony", "dynamics", "groove")
FILES: dict[Model, str] = {
    "recognizer": "emotion_recognizer",
    "melody": "melody_transformer",
    "harmony": "harmony_predictor",
    "dynamics": "dynamics_engine",
    "groove": "groove_predictor",
}
