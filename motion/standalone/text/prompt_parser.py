"""Prompts to conditionings over time, under the names that samplers and other extensions know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from motion.standalone.text.attention_syntax import parse_prompt_attention
from motion.standalone.text.prompt_schedule import get_learned_conditioning_prompt_schedules

__all__ = [
    "ComposableScheduledPromptConditioning",
    "DictWithShape",
    "MulticondLearnedConditioning",
    "ScheduledPromptConditioning",
    "SdConditioning",
    "get_learned_conditioning",
    "get_learned_conditioning_prompt_schedules",
    "get_multicond_learned_conditioning",
    "get_multicond_prompt_list",
    "parse_prompt_attention",
    "reconstruct_cond_batch",
    "reconstruct_multicond_batch",
    "stack_conds",
]

Cond = Tensor | dict[str, Tensor]
"""What a model makes of one text: `n c` tokens, or for SDXL a dict with "crossattn" and "vector"."""
CondBatch = Any
"""A batch of them: a Tensor, or for SDXL a `DictWithShape`. The model's family, not the call, decides which."""

_AND = re.compile(r"\bAND\b")
_PART_WEIGHT = re.compile(r"(?:\s*:\s*(?P<weight>[-+]?(?:\d+\.?|\d*\.\d+)))?\s*$")


class SdConditioning(list[str]):
    """Texts with what a text encoder may need beside them.

    Attributes:
        is_negative_prompt: the texts are a negative prompt.
        width: pixels of the picture, for SDXL.
        height: pixels of the picture, for SDXL.
    """

    def __init__(
        self,
        prompts: Iterable[str],
        is_negative_prompt: bool = False,
        width: int | None = None,
        height: int | None = None,
        copy_from: Any = None,
    ) -> None:
        super().__init__(prompts)
        source = prompts if copy_from is None else copy_from
        self.is_negative_prompt: bool = is_negative_prompt or getattr(source, "is_negative_prompt", False)
        self.width: int | None = width or getattr(source, "width", None)
        self.height: int | None = height or getattr(source, "height", None)


class ScheduledPromptConditioning(NamedTuple):
    """A conditioning and the last step that it is for."""

    end_at_step: int
    cond: Cond


class ComposableScheduledPromptConditioning:
    """One part of a prompt with AND: its schedule and its weight."""

    def __init__(self, schedules: list[ScheduledPromptConditioning], weight: float = 1.0) -> None:
        self.schedules = schedules
        self.weight = weight


class MulticondLearnedConditioning:
    """For each prompt of a batch the parts that AND joins.

    Attributes:
        shape: (prompts,), as samplers ask a conditioning for its shape.
        batch: prompt -> parts.
    """

    def __init__(self, shape: tuple[int, ...], batch: list[list[ComposableScheduledPromptConditioning]]) -> None:
        self.shape = shape
        self.batch = batch


class DictWithShape(dict[str, Tensor]):
    """A batch of SDXL's conditionings, which samplers ask for its shape."""

    def __init__(self, x: dict[str, Tensor], shape: Any = None) -> None:
        super().__init__(x)

    @property
    def shape(self) -> torch.Size:
        """Shape of the text tokens, `b n c`."""
        return self["crossattn"].shape


def get_learned_conditioning(
    model: Any,
    prompts: SdConditioning | list[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> list[list[ScheduledPromptConditioning]]:
    """For each prompt the conditionings of its texts over time.

    Args:
        model: has `get_learned_conditioning(texts)`, which returns one entry per text. The texts of one prompt are
            encoded in one call, so that they have the same number of chunks.
        prompts: prompts without AND.
        steps: steps of the first pass.
        hires_steps: steps of the hires pass, when the schedules are for that one.
        use_old_scheduling: count steps as web UIs before 1.6 did.
    """
    texts_over_time = get_learned_conditioning_prompt_schedules(prompts, steps, hires_steps, use_old_scheduling)
    by_prompt: dict[str, list[ScheduledPromptConditioning]] = {}
    for prompt, schedule in zip(prompts, texts_over_time, strict=True):
        if prompt not in by_prompt:
            texts = SdConditioning([str(text) for _, text in schedule], copy_from=prompts)
            conds = model.get_learned_conditioning(texts)
            by_prompt[prompt] = [
                ScheduledPromptConditioning(int(end), _entry(conds, index)) for index, (end, _) in enumerate(schedule)
            ]
    return [by_prompt[prompt] for prompt in prompts]


def get_multicond_prompt_list(
    prompts: SdConditioning | list[str],
) -> tuple[list[list[tuple[int, float]]], SdConditioning, dict[str, int]]:
    """Split prompts at AND.

    Returns:
        For each prompt its parts as (index in the list of texts, weight); the texts, each once; text -> index.
    """
    texts = SdConditioning([], copy_from=prompts)
    index_of: dict[str, int] = {}
    parts_of_prompts = []
    for prompt in prompts:
        parts = []
        for part in _AND.split(prompt):
            match = _PART_WEIGHT.search(part)
            text, weight = (part[: match.start()], match["weight"]) if match else (part, None)
            if text not in index_of:
                index_of[text] = len(texts)
                texts.append(text)
            parts.append((index_of[text], 1.0 if weight is None else float(weight)))
        parts_of_prompts.append(parts)
    return parts_of_prompts, texts, index_of


def get_multicond_learned_conditioning(
    model: Any,
    prompts: SdConditioning | list[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> MulticondLearnedConditioning:
    """As `get_learned_conditioning`, for prompts whose parts AND joins (Liu et al. 2022, composable diffusion)."""
    parts_of_prompts, texts, _ = get_multicond_prompt_list(prompts)
    schedules = get_learned_conditioning(model, texts, steps, hires_steps, use_old_scheduling)
    batch = [
        [ComposableScheduledPromptConditioning(schedules[index], weight) for index, weight in parts]
        for parts in parts_of_prompts
    ]
    return MulticondLearnedConditioning(shape=(len(prompts),), batch=batch)


def reconstruct_cond_batch(c: Sequence[list[ScheduledPromptConditioning]], current_step: int) -> CondBatch:
    """The conditionings of a batch at a step: `b n c`, or a dict of such batches.

    Args:
        c: schedule per picture; all conditionings have one shape.
        current_step: steps done.
    """
    conds = [_at_step(schedule, current_step) for schedule in c]
    if isinstance(conds[0], dict):
        return DictWithShape({key: torch.stack([cond[key] for cond in conds]) for key in conds[0]})
    return torch.stack(conds)


def reconstruct_multicond_batch(
    c: MulticondLearnedConditioning, current_step: int
) -> tuple[list[list[tuple[int, float]]], CondBatch]:
    """The conditionings of all parts of a batch at a step.

    Args:
        c: parts per picture.
        current_step: steps done.

    Returns:
        For each picture its parts as (row, weight); and the rows, shorter ones padded to the longest.
    """
    conds: list[Any] = []
    rows_of_pictures = []
    for parts in c.batch:
        rows = []
        for part in parts:
            rows.append((len(conds), part.weight))
            conds.append(_at_step(part.schedules, current_step))
        rows_of_pictures.append(rows)
    if isinstance(conds[0], dict):
        return rows_of_pictures, DictWithShape({key: stack_conds([cond[key] for cond in conds]) for key in conds[0]})
    return rows_of_pictures, stack_conds(conds)


def stack_conds(tensors: Sequence[Tensor]) -> Tensor:
    """Stack along a new first axis; shorter ones repeat their last row (token) up to the longest."""
    longest = max(tensor.shape[0] for tensor in tensors)
    padded = []
    for tensor in tensors:
        missing = longest - tensor.shape[0]
        padded.append(torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])]) if missing else tensor)
    return torch.stack(padded)


def _entry(conds: Any, index: int) -> Cond:
    if isinstance(conds, dict):
        return {key: values[index] for key, values in conds.items()}
    cond: Tensor = conds[index]
    return cond


def _at_step(schedule: list[ScheduledPromptConditioning], step: int) -> Any:
    """The conditioning for a step; the first one when all have ended, as the web UI has it."""
    return next((entry.cond for entry in schedule if step <= entry.end_at_step), schedule[0].cond)
