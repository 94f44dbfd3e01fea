"""Prompts are read as AUTOMATIC1111 1.10.1 reads them: tests/data/prompts.json holds its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from motion.errors import SettingsError
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.clip_tokenizer import END_ID, START_ID, ClipTokenizer
from motion.standalone.text import prompt_parser
from motion.standalone.text.chunks import PromptChunker
from motion.standalone.text.conditioner import TextConditioner
from motion.standalone.text.prompt_parser import ScheduledPromptConditioning, SdConditioning

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "prompts.json").read_text(encoding="utf-8"))
CONFIG = ClipTextEncoderConfig(hidden_size=64, num_layers=2, num_heads=1, intermediate_size=64)
LONG = "red fox, " * 60


def cases(name: str) -> list:
    return [pytest.param(case, id=f"{index}: {case['prompt'][:30]!r}") for index, case in enumerate(RECORDED[name])]


@pytest.fixture(scope="module")
def tokenizer() -> ClipTokenizer:
    return ClipTokenizer()


@pytest.fixture
def conditioner(tokenizer) -> TextConditioner:
    torch.manual_seed(0)
    clip = ClipTextEncoder(CONFIG).eval().requires_grad_(False)
    # As in every trained CLIP, the output has a mean for the weights to restore.
    clip.transformer.text_model.final_layer_norm.bias.fill_(0.1)
    return TextConditioner(clip, tokenizer)


@pytest.mark.parametrize("case", cases("schedules"))
def test_schedule(case):
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules([case["prompt"]], *case["steps"])
    assert schedules == [case["expected"]]


@pytest.mark.parametrize("case", cases("attention"))
def test_weights(case):
    parsed = prompt_parser.parse_prompt_attention(case["prompt"])
    assert [text for text, _ in parsed] == [text for text, _ in case["expected"]]
    assert [weight for _, weight in parsed] == pytest.approx([weight for _, weight in case["expected"]])


@pytest.mark.parametrize("case", cases("composition"))
def test_and(case):
    parts, texts, _ = prompt_parser.get_multicond_prompt_list([case["prompt"]])
    assert [[list(part) for part in parts[0]], list(texts)] == case["expected"]


@pytest.mark.parametrize("case", cases("chunks"))
def test_chunks(tokenizer, case):
    chunks, count = PromptChunker(tokenizer, case["comma_backtrack"]).split(case["prompt"])
    assert count == case["count"]
    lengths = case["lengths"]
    assert [chunk.tokens[1:].index(END_ID) for chunk in chunks] == lengths
    for chunk, length, first, weights in zip(chunks, lengths, case["first_tokens"], case["weights"], strict=True):
        assert len(chunk.tokens) == len(chunk.multipliers) == 77
        assert chunk.tokens[0] == START_ID
        assert chunk.tokens[1 : 1 + len(first)] == first
        assert set(chunk.tokens[1 + length :]) == {END_ID}
        assert sorted({round(weight, 6) for weight in chunk.multipliers[1 : 1 + length]}) == weights


@pytest.mark.parametrize("prompt", ["(" * 2000, "[a:" * 2000, "[(" * 500 + "a" + ")]" * 500])
def test_deep_brackets_are_read(prompt):
    assert prompt_parser.get_learned_conditioning_prompt_schedules([prompt], 10) == [[[10, prompt]]]


def test_weight_that_is_no_number():
    with pytest.raises(SettingsError, match=r"must be a number, got '1\.2\.3'"):
        prompt_parser.parse_prompt_attention("a (cat:1.2.3)")


def test_weights_scale_the_output_and_restore_its_mean(conditioner, tokenizer):
    plain = conditioner(["a cat"])
    weights = torch.ones(77)
    weights[2] = 1.4
    weighted = plain * weights[:, None]
    conditioner.emphasis = "No norm"
    torch.testing.assert_close(conditioner(["a (cat:1.4)"]), weighted)
    conditioner.emphasis = "Original"
    torch.testing.assert_close(conditioner(["a (cat:1.4)"]), weighted * (plain.mean() / weighted.mean()))
    conditioner.emphasis = "Ignore"
    assert torch.equal(conditioner(["a (cat:1.4)"]), plain)
    conditioner.emphasis = "None"
    ids = torch.tensor([[START_ID, *(body := tokenizer.encode("a (cat:1.4)")), *[END_ID] * (76 - len(body))]])
    torch.testing.assert_close(conditioner(["a (cat:1.4)"]), conditioner.clip(ids))


def test_output_without_a_mean_stays_finite(conditioner):
    norm = conditioner.clip.transformer.text_model.final_layer_norm
    norm.weight.zero_()
    norm.bias.zero_()
    assert not conditioner(["a (cat:1.4)"]).any()


def test_prompts_of_a_call_have_the_same_number_of_chunks(conditioner):
    conditioner.emphasis = "No norm"
    both = conditioner(["cat", LONG])
    assert both.shape == (2, 3 * 77, 64)
    torch.testing.assert_close(both[1:], conditioner([LONG]))
    torch.testing.assert_close(both[:1], torch.cat([conditioner(["cat"]), conditioner([""]), conditioner([""])], dim=1))


def test_clip_skip_and_dtype(conditioner):
    assert not torch.allclose(
        conditioner(["cat"]), TextConditioner(conditioner.clip, conditioner.tokenizer, clip_skip=2)(["cat"])
    )
    conditioner.to(torch.bfloat16)
    assert conditioner(["(cat:1.3)"]).dtype == torch.bfloat16


def test_token_counts(conditioner):
    assert conditioner.count_tokens("") == (0, 75)
    assert conditioner.count_tokens("a (photo:1.2) of a cat") == (5, 75)
    assert conditioner.count_tokens(LONG) == (180, 225)
    assert conditioner.count_tokens("one BREAK two") == (76, 150)


def test_unknown_emphasis(conditioner):
    conditioner.emphasis = "Loud"
    with pytest.raises(SettingsError, match="must be one of Original, No norm"):
        conditioner(["cat"])


class Model:
    """Encodes texts with a real conditioner, and notes its calls."""

    def __init__(self, conditioner: TextConditioner) -> None:
        self.conditioner = conditioner
        self.calls: list[SdConditioning] = []

    def get_learned_conditioning(self, texts: SdConditioning) -> torch.Tensor:
        self.calls.append(texts)
        return self.conditioner(texts)


def test_schedules_change_over_steps(conditioner):
    model = Model(conditioner)
    prompts = SdConditioning(["a [cat:dog:0.5]", "tree", "tree"], is_negative_prompt=True, width=512, height=256)
    schedules = prompt_parser.get_learned_conditioning(model, prompts, 10)
    assert [[entry.end_at_step for entry in schedule] for schedule in schedules] == [[5, 10], [10], [10]]
    assert [list(call) for call in model.calls] == [["a cat", "a dog"], ["tree"]]
    assert all((call.is_negative_prompt, call.width, call.height) == (True, 512, 256) for call in model.calls)
    for step, text in ((0, "a cat"), (5, "a cat"), (6, "a dog"), (10, "a dog"), (11, "a cat")):
        batch = prompt_parser.reconstruct_cond_batch(schedules, step)
        torch.testing.assert_close(batch, conditioner([text, "tree", "tree"]))


def test_composition_pads_rows_with_their_last_token(conditioner):
    model = Model(conditioner)
    conds = prompt_parser.get_multicond_learned_conditioning(model, [f"cat AND {LONG}:0.5", "cat"], 10)
    assert conds.shape == (2,)
    rows, batch = prompt_parser.reconstruct_multicond_batch(conds, 0)
    assert rows == [[(0, 1.0), (1, 0.5)], [(2, 1.0)]]
    assert batch.shape == (3, 231, 64)
    short = conditioner(["cat "])[0]
    torch.testing.assert_close(batch[0], torch.cat([short, short[-1:].expand(154, -1)]))


def test_sdxl_dicts_are_batched():
    entries = [{"crossattn": torch.full((77, 8), value), "vector": torch.full((4,), value)} for value in (1.0, 2.0)]
    schedules = [[ScheduledPromptConditioning(10, entry)] for entry in entries]
    batch = prompt_parser.reconstruct_cond_batch(schedules, 0)
    assert batch.shape == batch["crossattn"].shape == (2, 77, 8)
    assert batch["vector"][:, 0].tolist() == [1.0, 2.0]
    parts = [[prompt_parser.ComposableScheduledPromptConditioning(schedule, 0.5)] for schedule in schedules]
    multi = prompt_parser.MulticondLearnedConditioning((2,), parts)
    rows, batch = prompt_parser.reconstruct_multicond_batch(multi, 0)
    assert rows == [[(0, 0.5)], [(1, 0.5)]]
    assert batch["crossattn"].shape == (2, 77, 8)
