"""Prompts that change while sampling: `[from:to:when]`, `[to:when]`, `[from::when]` and `[a|b]`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_TEXT = re.compile(r"(?:[^\\\[\]():|]|\\.)+")
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\]")
_LOOSE = "[]():"
"""Characters that stand for themselves where they are part of no construct; "|" never is."""
_MAX_DEPTH = 100
"""Constructs inside constructs, beyond which brackets are loose characters: a bound on Python's recursion."""


@dataclass(frozen=True)
class _Edit:
    """`before` until step `when`, then `after`."""

    before: tuple[_Node, ...]
    after: tuple[_Node, ...]
    when: str


@dataclass(frozen=True)
class _Alternation:
    """One option a step, in turn."""

    options: tuple[tuple[_Node, ...], ...]


_Node = str | _Edit | _Alternation


@dataclass(frozen=True)
class StepCount:
    """How steps in prompts are counted.

    Attributes:
        steps: steps of the pass that the schedule is for.
        first_step: steps of the passes before it, which whole numbers count from.
        first_fraction: 1.0 in the hires pass, whose fractions run from 1.0 to 2.0.
        old: whole numbers and fractions are told by size (below 1), not by the decimal point.
    """

    steps: int
    first_step: int = 0
    first_fraction: float = 0.0
    old: bool = False

    def last_step(self, when: str) -> int:
        """Step after which a text changes, at most `steps`; 0 or less when it has changed before the first."""
        number = float(when)
        if self.old:
            step = number * self.steps if number < 1 else number
        elif "." in when:
            step = (number - self.first_fraction) * self.steps
        else:
            step = number - self.first_step
        return min(self.steps, int(step))


def get_learned_conditioning_prompt_schedules(
    prompts: Iterable[str], base_steps: int, hires_steps: int | None = None, use_old_scheduling: bool = False
) -> list[list[list[int | str]]]:
    """For each prompt its texts over time: pairs `[last step, text]`, steps counted from 1.

    A prompt that the syntax doesn't fit is one text, as it stands.

    Args:
        prompts: prompts without AND.
        base_steps: steps of the first pass.
        hires_steps: steps of the hires pass, when the schedule is for that one.
        use_old_scheduling: count steps as web UIs before 1.6 did.
    """
    if hires_steps is None or use_old_scheduling:
        count = StepCount(base_steps, old=use_old_scheduling)
    else:
        count = StepCount(hires_steps, first_step=base_steps, first_fraction=1.0)
    return [_schedule(prompt, count) for prompt in prompts]


def _schedule(prompt: str, count: StepCount) -> list[list[int | str]]:
    nodes = _Parser(prompt).parse()
    if nodes is None:
        return [[count.steps, prompt]]
    ends = sorted({count.steps, *_change_steps(nodes, count)})
    return [[end, _text_at(nodes, end, count)] for end in ends]


def _change_steps(nodes: tuple[_Node, ...], count: StepCount) -> Iterable[int]:
    """Steps after which the text may change."""
    for node in nodes:
        if isinstance(node, _Edit):
            last = count.last_step(node.when)
            if last >= 1:
                yield last
            yield from _change_steps(node.before + node.after, count)
        elif isinstance(node, _Alternation):
            yield from range(1, count.steps + 1)
            for option in node.options:
                yield from _change_steps(option, count)


def _text_at(nodes: tuple[_Node, ...], step: int, count: StepCount) -> str:
    return "".join(_node_text(node, step, count) for node in nodes)


def _node_text(node: _Node, step: int, count: StepCount) -> str:
    if isinstance(node, _Edit):
        return _text_at(node.before if step <= count.last_step(node.when) else node.after, step, count)
    if isinstance(node, _Alternation):
        return _text_at(node.options[(step - 1) % len(node.options)], step, count)
    return node


class _Parser:
    """Recursive descent over one prompt; a construct that fails leaves its bracket as a loose character."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._groups: dict[int, tuple[tuple[_Node, ...], int] | None] = {}
        self._depth = 0

    def parse(self) -> tuple[_Node, ...] | None:
        """Nodes of the whole prompt, or None when a "|" or a backslash at the end stands outside any construct."""
        nodes: list[_Node] = []
        position = 0
        while position < len(self._prompt):
            inner, after = self._sequence(position)
            nodes.extend(inner)
            if after == position:
                if self._prompt[position] not in _LOOSE:
                    return None
                nodes.append(self._prompt[position])
                after = position + 1
            position = after
        return tuple(nodes)

    def _sequence(self, position: int) -> tuple[list[_Node], int]:
        """Texts and complete constructs from `position` on, and where they end."""
        nodes: list[_Node] = []
        while position < len(self._prompt):
            if match := _TEXT.match(self._prompt, position):
                nodes.append(match[0])
                position = match.end()
                continue
            group = self._group(position)
            if group is None:
                break
            inner, position = group
            nodes.extend(inner)
        return nodes, position

    def _group(self, position: int) -> tuple[tuple[_Node, ...], int] | None:
        """The construct that begins with the bracket at `position`, and where it ends; None where there is none."""
        if position not in self._groups:
            opening = self._prompt[position]
            read = {"(": self._round_group, "[": self._square_group}.get(opening)
            self._depth += 1
            self._groups[position] = read(position) if read and self._depth <= _MAX_DEPTH else None
            self._depth -= 1
        return self._groups[position]

    def _round_group(self, start: int) -> tuple[tuple[_Node, ...], int] | None:
        """`(…)` or `(…:…)`, which stay in the text for the weights to be read."""
        nodes, position = self._sequence(start + 1)
        nodes = ["(", *nodes]
        if self._at(position) == ":":
            rest, position = self._sequence(position + 1)
            nodes += [":", *rest]
        return ((*nodes, ")"), position + 1) if self._at(position) == ")" else None

    def _square_group(self, start: int) -> tuple[tuple[_Node, ...], int] | None:
        """`[…]`, which stays in the text, an edit, or an alternation."""
        first, position = self._sequence(start + 1)
        if self._at(position) == "]":
            return ("[", *first, "]"), position + 1
        if self._at(position) == "|":
            return self._alternation(first, position)
        if self._at(position) != ":":
            return None
        if match := _NUMBER.match(self._prompt, position + 1):
            return (_Edit((), tuple(first), match[1]),), match.end()
        second, position = self._sequence(position + 1)
        match = _NUMBER.match(self._prompt, position + 1) if self._at(position) == ":" else None
        return ((_Edit(tuple(first), tuple(second), match[1]),), match.end()) if match else None

    def _alternation(self, first: list[_Node], position: int) -> tuple[tuple[_Node, ...], int] | None:
        options = [tuple(first)]
        while self._at(position) == "|":
            option, position = self._sequence(position + 1)
            options.append(tuple(option))
        return ((_Alternation(tuple(options)),), position + 1) if self._at(position) == "]" else None

    def _at(self, position: int) -> str:
        return self._prompt[position : position + 1]
