"""Infotext: the text that says how a picture was made; part of `modules.infotext_utils`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from motion.standalone import shared

_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_FEWEST_PARAMETERS = 3
_ABSENT: Mapping[str, Any] = MappingProxyType(
    {
        "Clip skip": "1",
        "Hires resize-1": 0,
        "Hires resize-2": 0,
        "Hires sampler": "Use same sampler",
        "Hires schedule type": "Use same scheduler",
        "Hires checkpoint": "Use same checkpoint",
        "Hires prompt": "",
        "Hires negative prompt": "",
        "Mask mode": "Inpaint masked",
        "Masked content": "original",
        "Inpaint area": "Whole picture",
        "Masked area padding": 32,
        "RNG": "GPU",
        "Schedule type": "Automatic",
        "Schedule max sigma": 0,
        "Schedule min sigma": 0,
        "Schedule rho": 0,
        "VAE Encoder": "Full",
        "VAE Decoder": "Full",
        "FP8 weight": "Disable",
        "Refiner switch by sampling steps": False,
    }
)
"""What A1111 means where an infotext is silent."""


def quote(text: Any) -> Any:
    """`text`, in JSON's quotes where it would be misread otherwise; what needs none keeps its type."""
    plain = str(text)
    safe = not re.search(r'[,\n:]|^"|^\s|\s$', plain)
    return text if safe else json.dumps(text if isinstance(text, str) else plain, ensure_ascii=False)


def unquote(text: str) -> str:
    """What `quote` was given, as text."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def parse_generation_parameters(x: str, skip_fields: Sequence[str] | None = None) -> dict[str, Any]:
    """Infotext -> its parameters.

    Args:
        x: prompt lines, "Negative prompt: …" lines, then one line of "key: value" pairs. Values in JSON's quotes may
            hold anything; "512x768" becomes "…-1" and "…-2".
        skip_fields: keys to leave out; default: the option infotext_skip_pasting.
    """
    *lines, last = x.strip().split("\n")
    if len(_PARAMETER.findall(last)) < _FEWEST_PARAMETERS:
        lines, last = [*lines, last], ""
    prompt, negative = _split_prompts(lines)
    found: dict[str, Any] = {}
    for key, raw in _PARAMETER.findall(last):
        value = unquote(raw)
        size = _SIZE.fullmatch(value)
        if size is None:
            found[key] = value
        else:
            found[f"{key}-1"], found[f"{key}-2"] = size.groups()
    found = {**found, "Prompt": prompt, "Negative prompt": negative}
    for key, meant in _ABSENT.items():
        if key != "Hires resize-2" or "Hires resize-1" not in found:
            found.setdefault(key, meant)
    for key in shared.opts.infotext_skip_pasting if skip_fields is None else skip_fields:
        found.pop(key, None)
    return found


def _split_prompts(lines: Iterable[str]) -> tuple[str, str]:
    prompt: list[str] = []
    negative: list[str] = []
    target = prompt
    for line in lines:
        text = line.strip()
        if text.startswith("Negative prompt:"):
            target = negative
            text = text.removeprefix("Negative prompt:").strip()
        target.append(text)
    return "\n".join(prompt), "\n".join(negative)


def _setting_names() -> list[tuple[str, str]]:
    return [(info.infotext, name) for name, info in shared.opts.data_labels.items() if info.infotext]


def create_override_settings_dict(text_pairs: Iterable[str]) -> dict[str, Any]:
    """["Clip skip: 2"] -> {"CLIP_stop_at_last_layers": 2}; keys that are no settings are left out."""
    given = {key: value.strip() for key, _, value in (pair.partition(":") for pair in text_pairs)}
    return {name: shared.opts.cast_value(name, given[key]) for key, name in _setting_names() if key in given}


def get_override_settings(
    params: Mapping[str, Any], *, skip_fields: Iterable[str] | None = None
) -> list[tuple[str, str, Any]]:
    """(infotext key, setting, value) of the settings in an infotext that differ from the current ones."""
    skipped = set(skip_fields or ())
    if shared.opts.disable_weights_auto_swap:
        skipped.add("Model hash")
    found = []
    for key, name in _setting_names():
        if key in skipped or params.get(key) is None:
            continue
        value = shared.opts.cast_value(name, params[key])
        if value != getattr(shared.opts, name, None):
            found.append((key, name, value))
    return found
