"""How a field of a request is described and checked: one parser for each kind of value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from motion.errors import SettingsError

_RATE = re.compile(r"-?\d{1,9}(\.\d{0,18}|/\d{1,9})?")


@dataclass(frozen=True)
class FieldSpec:
    """One field: how the UI shows it, how the API checks it, how the infotext names it.

    Attributes:
        parse: (name, raw value) -> value; raises SettingsError.
        label: text beside the control.
        info: one line below the control.
        control: "checkbox", "module", "family", "adapter", "loras", "integer", "number", "slider", "choice",
            "choices" or "text".
        infotext: key in the infotext; empty for a field that is not in it, as no pixel depends on it.
        minimum: smallest value, where there is one.
        maximum: largest value, where there is one.
        step: step of a slider.
        choices: allowed values of "choice" and "choices".
    """

    parse: Callable[[FieldSpec, str, Any], Any]
    label: str
    info: str
    control: str
    infotext: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()


def _wrong(name: str, expected: str, value: Any, remedy: str) -> SettingsError:
    shown = str(value) if isinstance(value, Fraction) else repr(value)
    return SettingsError(f"`{name}` must be {expected}, got {shown[:80]}. {remedy}")


def parse_bool(spec: FieldSpec, name: str, value: Any) -> bool:
    """A boolean, or its name."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _wrong(name, "true or false", value, "Pass a boolean.")


def parse_text(spec: FieldSpec, name: str, value: Any) -> str:
    """Text without blanks around it; None is empty."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    raise _wrong(name, "text", value, "Pass a string.")


def parse_tags(spec: FieldSpec, name: str, value: Any) -> str:
    """One line of tags, from text or a list of tags; what they mean is checked where their files are known."""
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        value = " ".join(value)
    text = " ".join(parse_text(spec, name, value).split())
    if re.fullmatch(r"(<lora:[^<>]+> ?)*", text) is None:
        raise _wrong(name, "tags such as <lora:pan_left:0.8>", value, "Write each motion LoRA as a tag.")
    return text


def parse_seeds(spec: FieldSpec, name: str, value: Any) -> str:
    """Whole numbers in the field's range with a blank between them, from a list, a number or text."""
    seeds = re.split(r"[,;\s]+", parse_text(spec, name, _numbers_as_text(value, int)).strip(",;"))
    if seeds == [""]:
        return ""
    if not all(re.fullmatch(r"-?\d{1,20}", seed) for seed in seeds):
        raise _wrong(name, "whole numbers such as 7, 7, 8", value, "Write one seed for each frame.")
    return " ".join(str(_in_range(spec, name, int(seed), "whole numbers")) for seed in seeds)


def parse_scales(spec: FieldSpec, name: str, value: Any) -> str:
    """One line of values or keyframes, from text, a number or a list; what it means for a clip is checked beside it."""
    value = _numbers_as_text(value, (int, float))
    if value is not None and not isinstance(value, str):
        raise _wrong(name, "a number, a list of them or text", value, "Write 1.2, or 1, 0.8, …, or 0: 1, 0.5: 0.3.")
    lines = (" ".join(line.split()).strip(",; ") for line in (value or "").splitlines())
    return ", ".join(line for line in lines if line)


def _numbers_as_text(value: Any, kinds: type | tuple[type, ...]) -> Any:
    """A number, or a list of them, as text with commas; anything else as it is."""
    items = value if isinstance(value, list | tuple) else [value]
    if all(isinstance(item, kinds) and not isinstance(item, bool) for item in items):
        return ", ".join(map(str, items))
    return value


def _in_range(spec: FieldSpec, name: str, value: Any, kind: str) -> Any:
    low, high = spec.minimum, spec.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        raise _wrong(name, f"{kind} from {low:.10g} to {high:.10g}", value, "Choose a value in this range.")
    return value


def parse_integer(spec: FieldSpec, name: str, value: Any) -> int:
    """A whole number in the field's range, from a number or its digits."""
    try:
        number = int(value) if isinstance(value, str) else value
        whole = not isinstance(number, bool) and number == int(number)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise _wrong(name, "a whole number", value, "Pass an integer.")
    return int(_in_range(spec, name, int(number), "a whole number"))


def parse_number(spec: FieldSpec, name: str, value: Any) -> float:
    """A number in the field's range."""
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if number != number:
        raise _wrong(name, "a number", value, "Pass a number.")
    return float(_in_range(spec, name, number, "a number"))


def parse_rate(spec: FieldSpec, name: str, value: Any) -> Fraction:
    """Frames a second, exact. A decimal next to a broadcast rate means that one: 23.976 is 24000/1001."""
    text = "" if isinstance(value, bool) else str(value).strip()
    try:
        if _RATE.fullmatch(text) is None:  # also keeps out "1e999999999", which would never end
            raise ValueError
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise _wrong(name, "a number or a fraction such as 24000/1001", value, "Pass frames a second.") from None
    if "." in text and rate.denominator > 1:
        broadcast = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
        rate = broadcast if abs(rate - broadcast) < Fraction(1, 1000) else rate.limit_denominator(1000)
    return Fraction(_in_range(spec, name, rate, "frames a second"))


def parse_choice(spec: FieldSpec, name: str, value: Any) -> str:
    """One of the field's choices, in any case."""
    for choice in spec.choices:
        if isinstance(value, str) and value.strip().lower() == choice.lower():
            return choice
    raise _wrong(name, "one of " + ", ".join(map(repr, spec.choices)), value, "Choose one of these.")


def parse_choices(spec: FieldSpec, name: str, value: Any) -> tuple[str, ...]:
    """Some of the field's choices, in its order, from a list or from text joined by commas or +."""
    if isinstance(value, str):
        value = [part for part in value.replace("+", ",").split(",") if part.strip()]
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise _wrong(name, "a list of " + ", ".join(spec.choices), value, "Pass a list.")
    chosen = {parse_choice(spec, name, item) for item in value}
    if not chosen:
        raise _wrong(name, "at least one of " + ", ".join(spec.choices), value, "Choose a format.")
    return tuple(choice for choice in spec.choices if choice in chosen)
