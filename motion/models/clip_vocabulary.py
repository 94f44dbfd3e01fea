"""CLIP's byte-pair vocabularies: the one of ViT-L/14, which the package carries, and those of files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from motion.errors import CheckpointError

END_OF_WORD = "</w>"
START_TEXT, END_TEXT = "<|startoftext|>", "<|endoftext|>"
TOKENS_FILE, MERGES_FILE = "vocab.json", "merges.txt"
MOST_MERGES = 48894
"""Lines of merges.txt that count: as many as CLIP ViT-L/14 has. OpenAI published a longer list."""

_REMEDY = "Put the folder's vocab.json and merges.txt there as they came with the checkpoint."


@dataclass(frozen=True)
class ClipVocabulary:
    """Tokens with their ids, and how they grow out of bytes.

    Attributes:
        ids: token -> id. A token that ends a word carries the suffix "</w>".
        merges: pairs of tokens that are joined, the most urgent first.
    """

    ids: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]

    @classmethod
    def from_merges(cls, merges: Iterable[tuple[str, str]]) -> ClipVocabulary:
        """The vocabulary in CLIP's order: bytes, bytes that end a word, what is merged, start and end of a text."""
        pairs = tuple(merges)
        tokens = dict.fromkeys([*byte_tokens(), *(left + right for left, right in pairs), START_TEXT, END_TEXT])
        return cls({token: index for index, token in enumerate(tokens)}, pairs)

    @classmethod
    def carried(cls) -> ClipVocabulary:
        """The 49,408 tokens of CLIP ViT-L/14."""
        data = gzip.decompress((Path(__file__).parent / "data" / "clip_merges.txt.gz").read_bytes())
        pairs = (line.split(" ") for line in data.decode("utf-8").splitlines())
        return cls.from_merges((left, right) for left, right in pairs)

    @classmethod
    def from_folder(cls, folder: Path) -> ClipVocabulary:
        """The vocabulary of a folder in CLIP's file format: vocab.json, and merges.txt with a first line of comment.

        Raises:
            CheckpointError: a file is missing or damaged, or the two don't fit together.
        """
        ids = _read_tokens(folder / TOKENS_FILE)
        return cls(ids, _read_merges(folder / MERGES_FILE, ids))

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)


def byte_tokens() -> list[str]:
    """Tokens of one byte each, 256 inside a word and 256 that end one, in the order of the vocabulary.

    Byte-level BPE (Radford et al. 2019, GPT-2) writes the printable Latin-1 bytes as themselves, and the other 68 as
    the letters from U+0100 on; the vocabulary lists them in that order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = 256 - len(printable)
    letters = [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(hidden)]
    return [*letters, *(letter + END_OF_WORD for letter in letters)]


def read_object(path: Path, remedy: str) -> dict[str, object]:
    """Content of a JSON file that holds one object.

    Raises:
        CheckpointError: it is missing, can't be read or holds something else.
    """
    try:
        content = json.loads(_read_text(path, remedy))
        json.dumps(content, ensure_ascii=False).encode()  # escapes may stand for halves of characters
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"The file is no JSON ({error}).", remedy) from error
    if not isinstance(content, dict):
        raise CheckpointError(path, f"Expected a JSON object, got a {type(content).__name__}.", remedy)
    return content


def _read_text(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(path, "The file is missing.", remedy) from error
    except (OSError, UnicodeError) as error:
        raise CheckpointError(path, f"The file can't be read ({error}).", remedy) from error


def _read_tokens(path: Path) -> dict[str, int]:
    content = read_object(path, _REMEDY)
    ids = {token: index for token, index in content.items() if type(index) is int}
    if len(ids) != len(content) or set(ids.values()) != set(range(len(ids))):
        last = len(content) - 1
        raise CheckpointError(path, f"Its {last + 1} tokens must have the ids 0 to {last}, each once.", _REMEDY)
    missing = [token for token in (*byte_tokens(), START_TEXT, END_TEXT) if token not in ids]
    if missing:
        reason = f"It lacks {len(missing)} tokens that texts may need, such as `{missing[0]}`."
        raise CheckpointError(path, reason, _REMEDY)
    return ids


def _read_merges(path: Path, ids: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    pairs = [line.split() for line in _read_text(path, _REMEDY).strip().split("\n")[1 : MOST_MERGES + 1]]
    for number, pair in enumerate(pairs, start=2):
        if len(pair) != 2 or any(token not in ids for token in (*pair, "".join(pair))):
            reason = f"Line {number} must be two tokens of {TOKENS_FILE} that join to a third, got {' '.join(pair)!r}."
            raise CheckpointError(path, reason, _REMEDY)
    return tuple((left, right) for left, right in pairs)
