"""CLIP's text to token ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import ftfy
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from motion.models.clip_vocabulary import END_OF_WORD, END_TEXT, START_TEXT, ClipVocabulary

START_ID = 49406
END_ID = 49407
VOCABULARY_SIZE = 49408

# What CLIP counts as one word before byte pairs are merged: a special token, an English contraction's tail, a run of
# letters, one digit, or a run of anything else that is no space (Radford et al. 2021, section 2.4).
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

# Where a text is cut before it is repaired: repairs look at all of what they are given, and leave "&amp;" beside a "<".
_SPECIAL = re.compile(f"({re.escape(START_TEXT)}|{re.escape(END_TEXT)})")


class ClipTokenizer:
    """Token ids of the vocabulary that CLIP ViT-L/14 and OpenCLIP share, or of another one in CLIP's format.

    Args:
        vocabulary: None takes that of CLIP ViT-L/14, with `START_ID`, `END_ID` and `VOCABULARY_SIZE`.

    Attributes:
        start_id: id that begins a text.
        end_id: id that ends a text; CLIP ViT-L/14 pads with it too.
        comma_id: id of a comma that stands alone.
        merges: pairs of tokens that are joined, the most frequent first.
    """

    def __init__(self, vocabulary: ClipVocabulary | None = None) -> None:
        known = ClipVocabulary.carried() if vocabulary is None else vocabulary
        self.merges = list(known.merges)
        self._vocabulary = dict(known.ids)
        self._tokenizer = Tokenizer(BPE(self._vocabulary, self.merges, end_of_word_suffix=END_OF_WORD))
        words = Split(Regex(_WORD), behavior="removed", invert=True)
        self._tokenizer.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
        self._tokenizer.add_special_tokens([START_TEXT, END_TEXT])
        self.start_id = self._vocabulary[START_TEXT]
        self.end_id = self._vocabulary[END_TEXT]
        self.comma_id = self._vocabulary["," + END_OF_WORD]

    @classmethod
    def from_folder(cls, path: str | Path) -> ClipTokenizer:
        """The tokenizer of a folder with vocab.json and merges.txt, as transformers' CLIPTokenizer reads it.

        Raises:
            CheckpointError: a file is missing or damaged, or the two don't fit together.
        """
        return cls(ClipVocabulary.from_folder(Path(path)))

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token to id; a token that ends a word carries the suffix "</w>"."""
        return dict(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without start and end, of any length.

        The text is repaired (mojibake, typographic quotes, HTML entities) and lower-cased first, as CLIP's own
        tokenizer does.
        """
        return [index for piece in _SPECIAL.split(text) for index in self._encode_piece(piece)]

    def _encode_piece(self, text: str) -> list[int]:
        clean = re.sub(r"\s+", " ", ftfy.fix_text(text)).strip().lower()
        return list(self._tokenizer.encode(clean, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Tokens of `ids` joined, with a space where a word ends; for messages and tests."""
        names = {index: token for token, index in self._vocabulary.items()}
        return "".join(names[index] for index in ids).replace(END_OF_WORD, " ").strip()
