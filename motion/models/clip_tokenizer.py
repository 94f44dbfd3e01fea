"""CLIP's text to token ids, with the byte-pair vocabulary that the package carries."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable
from pathlib import Path

import ftfy
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

START_ID = 49406
END_ID = 49407
VOCABULARY_SIZE = 49408

_END_OF_WORD = "</w>"
_START_TEXT, _END_TEXT = "<|startoftext|>", "<|endoftext|>"
# What CLIP counts as one word before byte pairs are merged: a special token, an English contraction's tail, a run of
# letters, one digit, or a run of anything else that is no space (Radford et al. 2021, section 2.4).
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Token ids of the vocabulary that CLIP ViT-L/14 and OpenCLIP share.

    Attributes:
        start_id: id that begins a text.
        end_id: id that ends a text; CLIP ViT-L/14 pads with it too.
        comma_id: id of a comma that stands alone.
        merges: pairs of tokens that are joined, the most frequent first.
    """

    def __init__(self) -> None:
        self.merges = _read_merges()
        self._vocabulary = _build_vocabulary(self.merges)
        self._tokenizer = Tokenizer(BPE(self._vocabulary, self.merges, end_of_word_suffix=_END_OF_WORD))
        words = Split(Regex(_WORD), behavior="removed", invert=True)
        self._tokenizer.pre_tokenizer = Sequence([words, ByteLevel(add_prefix_space=False, use_regex=False)])
        self._tokenizer.add_special_tokens([_START_TEXT, _END_TEXT])
        self.start_id = self._vocabulary[_START_TEXT]
        self.end_id = self._vocabulary[_END_TEXT]
        self.comma_id = self._vocabulary["," + _END_OF_WORD]

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token to id; a token that ends a word carries the suffix "</w>"."""
        return dict(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without start and end, of any length.

        The text is repaired (mojibake, typographic quotes, HTML entities) and lower-cased first, as CLIP's own
        tokenizer does.
        """
        clean = re.sub(r"\s+", " ", ftfy.fix_text(text)).strip().lower()
        return list(self._tokenizer.encode(clean, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Tokens of `ids` joined, with a space where a word ends; for messages and tests."""
        names = {index: token for token, index in self._vocabulary.items()}
        return "".join(names[index] for index in ids).replace(_END_OF_WORD, " ").strip()


def _read_merges() -> list[tuple[str, str]]:
    """The byte-pair merges, the most frequent first."""
    data = gzip.decompress((Path(__file__).parent / "data" / "clip_merges.txt.gz").read_bytes())
    pairs = (line.split(" ") for line in data.decode("utf-8").splitlines())
    return [(left, right) for left, right in pairs]


def _build_vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id: single bytes, single bytes that end a word, merges, then the two special tokens."""
    letters = _byte_letters()
    tokens = [
        *letters,
        *(letter + _END_OF_WORD for letter in letters),
        *(left + right for left, right in merges),
        _START_TEXT,
        _END_TEXT,
    ]
    return {token: index for index, token in enumerate(tokens)}


def _byte_letters() -> list[str]:
    """One visible letter for each byte, in the order of the vocabulary.

    Byte-level BPE (Radford et al. 2019, GPT-2) writes the printable Latin-1 bytes as themselves, and the other 68 as
    the letters from U+0100 on; the vocabulary lists them in that order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(hidden)]
