"""Folders of small text encoders with a vocabulary of their own."""

from __future__ import annotations

import json
from pathlib import Path

from motion.models.clip_text import ClipTextEncoderConfig
from motion.training.vocabulary import make_vocabulary, write_vocabulary

WORDS = ("a", "red", "circle", "on", "background", "moving", "left", "and", "日本")


def own_text_config(**shape: int | str) -> ClipTextEncoderConfig:
    """Shape of a text encoder that knows `WORDS`, with four heads where its shapes tell of one."""
    small = {"hidden_size": 64, "num_layers": 2, "num_heads": 4, "intermediate_size": 128}
    return ClipTextEncoderConfig(vocabulary_size=len(make_vocabulary(WORDS)), **{**small, **shape})


def write_text_folder(folder: Path, **shape: int | str) -> ClipTextEncoderConfig:
    """The folder of such an encoder."""
    config = own_text_config(**shape)
    write_vocabulary(folder, WORDS, config)
    return config


def change_config(folder: Path, **settings: object) -> None:
    """Set entries of its config.json; None takes one out."""
    path = folder / "config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **settings}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}), encoding="utf-8")
