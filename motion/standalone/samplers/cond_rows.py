"""Rows of text conditions: SD1's are one tensor, SDXL's are tokens and vectors of the same rows."""

from __future__ import annotations

from typing import Any

import torch

from motion.standalone.text.prompt_parser import DictWithShape

TextRows = torch.Tensor | DictWithShape
"""Tokens, rows n d; or "crossattn", the same, with "vector", rows v. `.shape` is that of the tokens in both."""


def join(first: TextRows, second: TextRows) -> TextRows:
    """The rows of `first`, then those of `second`."""
    if isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor), "both come from one model"
        return torch.cat([first, second])
    assert isinstance(second, DictWithShape), "both come from one model"
    return DictWithShape({key: torch.cat([values, second[key]]) for key, values in first.items()})


def take(text: TextRows, rows: slice) -> TextRows:
    """Some of the rows."""
    if isinstance(text, torch.Tensor):
        return text[rows]
    return DictWithShape({key: values[rows] for key, values in text.items()})


def tokens_of(text: TextRows) -> torch.Tensor:
    """The tokens, rows n d."""
    return text if isinstance(text, torch.Tensor) else text["crossattn"]


def with_tokens(text: TextRows, tokens: torch.Tensor) -> TextRows:
    """The same rows with other tokens."""
    return tokens if isinstance(text, torch.Tensor) else DictWithShape({**text, "crossattn": tokens})


def for_model(text: TextRows, image_cond: torch.Tensor) -> dict[str, Any]:
    """What `apply_model` takes: ldm's form for SD1, sgm's for SDXL."""
    conds: dict[str, Any] = {"c_crossattn": [text]} if isinstance(text, torch.Tensor) else dict(text)
    return {**conds, "c_concat": [image_cond]}
