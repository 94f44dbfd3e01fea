"""CLIP's tokens and text encoder: known ids, the original's rules on any text, and every layer to stop at."""

from __future__ import annotations

import json
import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.clip_tokenizer import END_ID, START_ID, VOCABULARY_SIZE, ClipTokenizer

CONFIG = ClipTextEncoderConfig(vocabulary_size=100, hidden_size=32, num_layers=3, num_heads=2, intermediate_size=64)


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


@pytest.fixture(scope="module")
def original(tokenizer, tmp_path_factory) -> CLIPTokenizer:
    """The tokenizer that web UIs use, given the vocabulary that is carried here."""
    folder = tmp_path_factory.mktemp("clip")
    tokens = sorted(tokenizer.vocabulary, key=tokenizer.vocabulary.__getitem__)
    (folder / "vocab.json").write_text(json.dumps(tokenizer.vocabulary))
    merges = [f"{left} {right}" for left, right in tokenizer.merges]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    assert len(tokens) == VOCABULARY_SIZE
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("a", [320]),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("  A   PHOTO\nof a cat ", [320, 1125, 539, 320, 2368]),
        ("cat, dog", [2368, 267, 1929]),
        ("don’t", [847, 713]),
        ("&amp;", [261]),
        ("&amp;<|endoftext|>&amp;", [261, END_ID, 261]),
    ],
)
def test_known_ids(tokenizer, text, ids):
    assert tokenizer.encode(text) == ids


def test_special_ids(tokenizer):
    assert (tokenizer.start_id, tokenizer.end_id, tokenizer.comma_id) == (START_ID, END_ID, 267) == (49406, 49407, 267)
    assert len(tokenizer.vocabulary) == VOCABULARY_SIZE == 49408
    assert tokenizer.encode("x <|endoftext|>") == [343, END_ID]


ALPHABET = "abcABC éÄßİ019 ,.'\"-_()[]:!?\n\t’“…&;日本한ﬁＡ👍🏽\u200bÂ©²<|>/\\"

# Libraries know different versions of Unicode, and disagree on whether a newer character is a letter.
OLD_CHARACTERS = st.characters(exclude_categories=["Cs"]).filter(lambda c: unicodedata.ucd_3_2_0.category(c) != "Cn")


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(ALPHABET, max_size=40), st.text(OLD_CHARACTERS, max_size=20)))
def test_every_text_has_the_original_ids(tokenizer, original, text):
    assert tokenizer.encode(text) == original(text, truncation=False, add_special_tokens=False)["input_ids"]


def test_decode_joins_words(tokenizer):
    text = "a photograph of an astronaut riding a horse"
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.fixture(scope="module")
def encoder() -> ClipTextEncoder:
    torch.manual_seed(0)
    return ClipTextEncoder(CONFIG).eval().requires_grad_(False)


def test_clip_skip_counts_layers_from_the_end(encoder):
    tokens = torch.randint(100, (2, 77))
    hidden = encoder.transformer(input_ids=tokens, output_hidden_states=True).hidden_states
    norm = encoder.transformer.text_model.final_layer_norm
    for clip_skip in (1, 2, 3):
        torch.testing.assert_close(encoder(tokens, clip_skip), norm(hidden[-clip_skip]), rtol=0, atol=0)


def test_a_token_does_not_see_later_ones(encoder):
    first, second = torch.zeros(2, 1, 77, dtype=torch.long)
    second[0, 40:] = 7
    before, after = encoder(first), encoder(second)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


@pytest.mark.parametrize("clip_skip", [0, 4, -1])
def test_clip_skip_out_of_range(encoder, clip_skip):
    with pytest.raises(ValueError, match="must be 1 to 3"):
        encoder(torch.zeros(1, 77, dtype=torch.long), clip_skip)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="multiple of `num_heads`"):
        ClipTextEncoderConfig(hidden_size=100, num_heads=12)


def test_positions_are_real_on_the_meta_device():
    with torch.device("meta"):
        encoder = ClipTextEncoder(CONFIG)
    assert encoder.transformer.text_model.embeddings.position_ids.tolist() == [list(range(77))]
