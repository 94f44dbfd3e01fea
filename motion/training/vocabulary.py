"""A small vocabulary of whole words in CLIP's file format, for text encoders that are trained from nothing.

It has CLIP's structure: the 512 tokens of single bytes, with which a text of any language can be written, the merges
that build each of the given words, then start and end of a text. transformers' CLIPTokenizer and CLIPTextModel, and
with them the web UIs, read the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from motion.checkpoints.text_folder import CONFIG_FILE
from motion.models.clip_text import ClipTextEncoderConfig
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.clip_vocabulary import (
    END_OF_WORD,
    END_TEXT,
    MERGES_FILE,
    START_TEXT,
    TOKENS_FILE,
    ClipVocabulary,
)


def make_vocabulary(words: Iterable[str]) -> ClipVocabulary:
    """A vocabulary in which each of `words` is one token; other words take one token for each piece or byte.

    Args:
        words: in the order in which their merges are written; upper case and repetitions make no difference.

    Raises:
        ValueError: one of them is no word as CLIP splits texts (a run of letters, one digit, or a run of other signs).
    """
    vocabulary = ClipVocabulary.from_merges(())
    for word in words:
        vocabulary = _with_word(vocabulary, word)
    return vocabulary


def write_vocabulary(folder: Path, words: Iterable[str], text_config: ClipTextEncoderConfig) -> None:
    """Write config.json, vocab.json and merges.txt: all that a text encoder's folder needs.

    Args:
        folder: made if missing; files of these names in it are replaced.
        words: as for `make_vocabulary`.
        text_config: shape of the text encoder; its `vocabulary_size` must be that of the words' vocabulary.

    Raises:
        ValueError: as `make_vocabulary`, or another vocabulary size.
    """
    vocabulary = make_vocabulary(words)
    if text_config.vocabulary_size != len(vocabulary):
        raise ValueError(
            f"`vocabulary_size` must be {len(vocabulary)} for these words, got {text_config.vocabulary_size}. "
            "Take the length of make_vocabulary(words)."
        )
    merges = ["#version: 0.2", *(f"{left} {right}" for left, right in vocabulary.merges)]
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / TOKENS_FILE, dict(vocabulary.ids))
    (folder / MERGES_FILE).write_text("\n".join(merges) + "\n", encoding="utf-8", newline="\n")
    _write_json(folder / CONFIG_FILE, _transformers_settings(vocabulary, text_config))


def _with_word(vocabulary: ClipVocabulary, word: str) -> ClipVocabulary:
    """`vocabulary` with the merges that `word` still lacks.

    They come after all earlier ones. A word that is already one token stays so: as long as it isn't, one of its own
    merges applies, and goes before any later one.
    """
    while True:
        names = list(vocabulary.ids)
        pieces = [names[index] for index in ClipTokenizer(vocabulary).encode(word)]
        if (
            not pieces
            or any(piece.endswith(END_OF_WORD) for piece in pieces[:-1])
            or pieces[-1] in (START_TEXT, END_TEXT)
        ):
            raise ValueError(
                "A word must be a run of letters, one digit, or a run of other signs, which CLIP doesn't split, "
                f"got {word!r}. Split it."
            )
        if len(pieces) == 1:
            return vocabulary
        vocabulary = ClipVocabulary.from_merges([*vocabulary.merges, (pieces[0], pieces[1])])


def _transformers_settings(vocabulary: ClipVocabulary, config: ClipTextEncoderConfig) -> dict[str, object]:
    """The encoder's shape in the words of transformers' CLIPTextConfig (4.30 and later)."""
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": vocabulary.ids[START_TEXT],
        "eos_token_id": vocabulary.ids[END_TEXT],
        "hidden_act": config.hidden_act,
        "hidden_size": config.hidden_size,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": config.max_positions,
        "model_type": "clip_text_model",
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "pad_token_id": vocabulary.ids[END_TEXT],
        "projection_dim": config.projection_size or config.hidden_size,
        "torch_dtype": "float32",
        "vocab_size": config.vocabulary_size,
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
