"""A vocabulary of whole words: its structure, and that transformers reads its folder as our tokenizer does."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTextConfig, CLIPTokenizer

from motion.models.clip_text import ClipTextEncoderConfig
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.clip_vocabulary import END_OF_WORD, END_TEXT, START_TEXT, byte_tokens
from motion.training.shapes_words import WORDS
from motion.training.vocabulary import make_vocabulary, write_vocabulary

# Each of these holds another one, or shares pieces with it that a merge of the other one could take away.
ENTANGLED = (
    "an",
    "and",
    "orange",
    "band",
    "ban",
    "nab",
    "aaa",
    "aaaa",
    "aab",
    "ing",
    "turning",
    "n",
    "日本",
    "Ünïcode",
)
letters = st.text("abcé", min_size=1, max_size=7)


@pytest.mark.parametrize("words", [WORDS, ENTANGLED, ENTANGLED[::-1]])
def test_each_word_is_one_token(words):
    tokenizer = ClipTokenizer(make_vocabulary(words))
    assert {word: len(tokenizer.encode(word)) for word in words} == dict.fromkeys(words, 1)


@settings(max_examples=40, deadline=None)
@given(words=st.lists(letters, max_size=8))
def test_later_words_never_split_earlier_ones(words):
    vocabulary = make_vocabulary(words)
    tokenizer = ClipTokenizer(vocabulary)
    assert all(len(tokenizer.encode(word)) == 1 for word in words)
    assert sorted(vocabulary.ids.values()) == list(range(len(vocabulary)))


def test_structure_is_that_of_clip():
    vocabulary = make_vocabulary(["red", "Green", "red"])
    tokens = list(vocabulary.ids)
    assert tokens[:512] == byte_tokens() == list(ClipTokenizer().vocabulary)[:512]
    assert tokens[512:-2] == [left + right for left, right in vocabulary.merges]
    assert {"red" + END_OF_WORD, "green" + END_OF_WORD} <= set(tokens)
    assert tokens[-2:] == [START_TEXT, END_TEXT]
    assert make_vocabulary(["red", "green"]) == vocabulary


def test_every_text_comes_back():
    tokenizer = ClipTokenizer(make_vocabulary(["red"]))
    assert [tokenizer.decode([index]) for index in tokenizer.encode("red, redder")][:2] == ["red", ","]
    assert len(tokenizer.encode("日")) == len("日".encode())


@pytest.mark.parametrize("word", ["", " ", "two words", "don't", "64", "a,", START_TEXT, END_TEXT])
def test_what_is_no_word(word):
    with pytest.raises(ValueError, match=r"A word must be a run of letters, one digit.*Split it"):
        make_vocabulary(["red", word])


def test_folder_has_three_files_that_transformers_reads(tmp_path):
    size = len(make_vocabulary(WORDS))
    config = ClipTextEncoderConfig(
        vocabulary_size=size, hidden_size=64, num_layers=3, num_heads=4, intermediate_size=96, hidden_act="gelu"
    )
    write_vocabulary(tmp_path / "text", WORDS, config)
    assert sorted(path.name for path in (tmp_path / "text").iterdir()) == ["config.json", "merges.txt", "vocab.json"]
    read = CLIPTextConfig.from_pretrained(tmp_path / "text")
    shape = (read.vocab_size, read.hidden_size, read.num_hidden_layers, read.num_attention_heads, read.hidden_act)
    assert shape == (size, 64, 3, 4, "gelu")
    assert (read.intermediate_size, read.max_position_embeddings, read.eos_token_id) == (96, 77, size - 1)
    original = CLIPTokenizer.from_pretrained(tmp_path / "text")
    ours = ClipTokenizer.from_folder(tmp_path / "text")
    assert (original.bos_token_id, original.eos_token_id) == (ours.start_id, ours.end_id) == (size - 2, size - 1)
    assert original.get_vocab() == ours.vocabulary == json.loads((tmp_path / "text" / "vocab.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> tuple[ClipTokenizer, CLIPTokenizer]:
    """Ours and transformers' of one folder."""
    folder = tmp_path_factory.mktemp("text")
    words = [*WORDS, *ENTANGLED]
    write_vocabulary(folder, words, ClipTextEncoderConfig(vocabulary_size=len(make_vocabulary(words))))
    return ClipTokenizer.from_folder(folder), CLIPTokenizer.from_pretrained(folder)


ALPHABET = "abcABC éÄßİ019 ,.'\"-_()[]:!?\n\t’“…&;日本한ﬁＡ👍🏽\u200bÂ©²<|>/\\"
# Libraries know different versions of Unicode, and disagree on whether a newer character is a letter.
OLD_CHARACTERS = st.characters(exclude_categories=["Cs"]).filter(lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn")
KNOWN = st.lists(
    st.sampled_from([*WORDS, *ENTANGLED, "don't", "64", "redder", "&amp;", START_TEXT, END_TEXT, END_TEXT.upper()]),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(
        KNOWN.map(" ".join), KNOWN.map("".join), st.text(ALPHABET, max_size=40), st.text(OLD_CHARACTERS, max_size=20)
    )
)
def test_every_text_has_transformers_ids(tokenizers, text):
    ours, original = tokenizers
    assert ours.encode(text) == original(text, truncation=False, add_special_tokens=False)["input_ids"]


def test_same_words_give_the_same_bytes(tmp_path):
    config = ClipTextEncoderConfig(vocabulary_size=len(make_vocabulary(["red"])))
    for name in ("a", "b"):
        write_vocabulary(tmp_path / name, ["red"], config)
    for file in ("config.json", "merges.txt", "vocab.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_vocabulary_size_must_be_that_of_the_words(tmp_path):
    with pytest.raises(ValueError, match="`vocabulary_size` must be 516 for these words, got 49408"):
        write_vocabulary(tmp_path, ["red"], ClipTextEncoderConfig())
    assert list(tmp_path.iterdir()) == []
