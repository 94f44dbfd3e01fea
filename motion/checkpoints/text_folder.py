"""The folder of a text encoder with a vocabulary of its own: config.json, vocab.json and merges.txt, as transformers'.

A checkpoint's yaml names it, under `model.params.cond_stage_config.params.version`. AUTOMATIC1111 hands that name to
transformers, which takes the path of a folder; what is said here beyond that holds in the embedded host alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from motion.errors import CheckpointError
from motion.models.clip_text import ClipTextEncoderConfig
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.clip_vocabulary import TOKENS_FILE, read_object

CONFIG_FILE = "config.json"
FOLDER_PLACEHOLDER = "TEXT_ENCODER_FOLDER"
"""What yamls that are handed on say instead of a path: the folder `<name>-text` beside `<name>.yaml`."""
CLIP_NAME = "openai/clip-vit-large-patch14"
"""The name under which yamls mean CLIP ViT-L/14 itself."""

_REMEDY = "Put the folder there as it came with the checkpoint, or correct `version` in the checkpoint's yaml."
_SIZES: Mapping[str, str] = MappingProxyType(
    {
        "vocab_size": "vocabulary_size",
        "hidden_size": "hidden_size",
        "num_hidden_layers": "num_layers",
        "intermediate_size": "intermediate_size",
        "max_position_embeddings": "max_positions",
    }
)
"""What config.json says of the encoder that its tensors say too -> its name here."""
_DEFAULT_HEADS = 8
_ACTIVATIONS = ("quick_gelu", "gelu")
_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class TextFolder:
    """What a text encoder's folder says.

    Attributes:
        path: the folder.
        tokenizer: of its vocabulary.
        num_heads: attention heads of the encoder.
        hidden_act: activation of the encoder.
        sizes: other sizes of the encoder that the folder states, by their names in `ClipTextEncoderConfig`.
    """

    path: Path
    tokenizer: ClipTokenizer
    num_heads: int
    hidden_act: str
    sizes: Mapping[str, object]

    def complete(self, shapes: ClipTextEncoderConfig) -> ClipTextEncoderConfig:
        """The shape of the encoder, from its tensors and this folder.

        Args:
            shapes: what the tensors say.

        Raises:
            CheckpointError: the two contradict each other.
        """
        for stated, name in _SIZES.items():
            actual = getattr(shapes, name)
            if self.sizes.get(name, actual) != actual:
                self._refuse(
                    CONFIG_FILE, f"`{stated}` is {self.sizes[name]}, but the checkpoint's tensors say {actual}."
                )
        tokens = len(self.tokenizer.vocabulary)
        if tokens != shapes.vocabulary_size:
            reason = f"It has {tokens} tokens, but the checkpoint's text encoder has {shapes.vocabulary_size}."
            self._refuse(TOKENS_FILE, reason)
        if shapes.hidden_size % self.num_heads:
            reason = f"{shapes.hidden_size} channels can't be split into `num_attention_heads`, {self.num_heads}."
            self._refuse(CONFIG_FILE, reason)
        return dataclasses.replace(shapes, num_heads=self.num_heads, hidden_act=self.hidden_act)

    def _refuse(self, file: str, reason: str) -> None:
        raise CheckpointError(self.path / file, reason, _REMEDY)


def find_text_folder(version: object, yaml: Path) -> Path | None:
    """The folder that a checkpoint's yaml means; None for CLIP ViT-L/14's own vocabulary.

    Args:
        version: None or `CLIP_NAME` for CLIP's own; `FOLDER_PLACEHOLDER`; a path, taken from the yaml's folder where it
            is relative.
        yaml: the file that says so.

    Raises:
        CheckpointError: it is no text.
    """
    if version is None or version == CLIP_NAME:
        return None
    if not isinstance(version, str) or not version:
        reason = f"`version` of the text encoder must be the path of a folder, got {version!r}."
        raise CheckpointError(yaml, reason, "Correct it, or remove it for CLIP's own vocabulary.")
    return yaml.parent / (f"{yaml.stem}-text" if version == FOLDER_PLACEHOLDER else version)


def read_text_folder(path: Path) -> TextFolder:
    """Read a text encoder's folder.

    Raises:
        CheckpointError: it or one of its files is missing or damaged, or describes an encoder of another kind.
    """
    if not os.path.isdir(path):
        raise CheckpointError(path, "The folder of the checkpoint's text encoder is missing.", _REMEDY)
    file = path / CONFIG_FILE
    settings = _text_settings(read_object(file, _REMEDY))
    heads = settings.get("num_attention_heads", _DEFAULT_HEADS)
    if not isinstance(heads, int) or heads < 1:
        raise CheckpointError(file, f"`num_attention_heads` must be a positive integer, got {heads!r}.", _REMEDY)
    activation = str(settings.get("hidden_act", _ACTIVATIONS[0]))
    if activation not in _ACTIVATIONS:
        reason = f"`hidden_act` must be one of {', '.join(_ACTIVATIONS)}, got {activation}."
        raise CheckpointError(file, reason, "Choose another checkpoint.")
    if settings.get("layer_norm_eps", _NORM_EPSILON) != _NORM_EPSILON:
        reason = f"`layer_norm_eps` must be {_NORM_EPSILON}, got {settings['layer_norm_eps']}."
        raise CheckpointError(file, reason, "Choose another checkpoint.")
    sizes = {name: settings[stated] for stated, name in _SIZES.items() if stated in settings}
    return TextFolder(path, ClipTokenizer.from_folder(path), heads, activation, sizes)


def _text_settings(content: Mapping[str, object]) -> Mapping[str, object]:
    """Settings of the text encoder; the config.json of a whole CLIP has them one level down."""
    inner = content.get("text_config")
    return inner if content.get("model_type") == "clip" and isinstance(inner, dict) else content
