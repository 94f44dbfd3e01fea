"""Prompts that travel: a text with keyframe lines, as one writes it into the prompt's box.

```
masterpiece, 1girl            head: before every frame's own text
0: closed eyes                keyframe lines `key: text`, see `motion.conditioning.keyframes`
8 ease-in: open eyes
12-15: smile, <tail …>
outdoors                      tail: after every frame's own text
```

What makes a line a keyframe is its beginning alone: a frame number (or fraction, or range), options if any, a colon.
So "1girl: best", "a photo: cat", "2 cats: a portrait" and "(0.8: x)" are text, and a text without any keyframe line is
an ordinary prompt, however many lines it has. So is what reads as a time or a ratio, digits on both sides of a colon
without a space ("12:30, noon", "16:9 picture"); "8:1girl" is a keyframe, since a letter follows the digits.

A line that nearly is a keyframe ("8;: x", "8 hodl: x", "50%: x") is refused, quoted. Beside keyframes nothing is
guessed at all: between the first and the last of them every line must be one, and in head and tail "16:9 picture" and
"2 cats: a portrait" are refused too. A backslash before the number makes any line text.

Parts are joined by ", ", commas at their ends removed. What older extensions take for a keyframe (`8: text`, exactly
one space) means the same here; "8:text", which there falls silently into the tail, is a keyframe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from motion.conditioning.keyframes import Key, parse_key
from motion.errors import SettingsError

_LINES = re.compile(r"\r\n|\r|\n")
_TIME = re.compile(r"\s*\d+:\d+(?:[:.,]\d+)*(?:\s*[ap]\.?m\b|(?!\w))", re.IGNORECASE)
_ESCAPED = re.compile(r"(\s*)\\(.*)", re.DOTALL)
# All of it numbers and marks, perhaps with a word for "frame": nobody's prompt begins like this but by a slip.
_NEARLY = re.compile(r"(?=\D*\d)\s*(?:frames?\b)?[\s\d.,;%#'\"+–—-]+", re.IGNORECASE)
_KEY_AND_WORDS = re.compile(r"\s*[\d.-]+\s+[\w\s=.-]*", re.ASCII)
_TAG = re.compile(r"<\w+:[^<>]*>")
_AND = re.compile(r"\bAND\b")
_FORM = "Write `8: text`, `0.5: text`, `8-12: text` or `8 hold: text`; a backslash before the number makes it text."


@dataclass(frozen=True)
class Keyframe:
    """One keyframe line.

    Attributes:
        key: frames and options.
        text: what is shown there; empty where the line sets values only.
        line: the line as written, for messages.
    """

    key: Key
    text: str
    line: str


@dataclass(frozen=True)
class TravelPrompt:
    """A prompt's lines, sorted by what they mean.

    Attributes:
        head: lines before the first keyframe.
        keyframes: keyframe lines as written; empty for an ordinary prompt.
        tail: lines after the last keyframe.
        has_backslashes: a backslash that made a line text was taken away.
    """

    head: tuple[str, ...]
    keyframes: tuple[Keyframe, ...] = ()
    tail: tuple[str, ...] = ()
    has_backslashes: bool = field(default=False, compare=False)

    @property
    def is_travel(self) -> bool:
        """True where there is a keyframe."""
        return bool(self.keyframes)

    @property
    def text(self) -> str:
        """The prompt as `read_prompt` reads it again."""
        own = [f"{frame.key.text}: {frame.text}" for frame in self.keyframes]
        return "\n".join([*map(_escaped, self.head), *own, *map(_escaped, self.tail)])

    def at(self, text: str) -> str:
        """Prompt of a frame whose own text is `text`."""
        if not self.is_travel:
            return "\n".join(self.head)
        parts = (part.strip().strip(",").strip() for part in (*self.head, text, *self.tail))
        return ", ".join(part for part in parts if part)


def read_prompt(text: str) -> TravelPrompt:
    """Sort the lines of a prompt; one without keyframes has a head only, to the letter but for backslashes.

    Raises:
        SettingsError: a line that nearly is a keyframe, or one between keyframes that is none. It is quoted.
    """
    lines = _LINES.split(text)
    keyframes = [_keyframe(line) for line in lines]
    places = [place for place, frame in enumerate(keyframes) if frame is not None]
    begin, end = (places[0], places[-1] + 1) if places else (len(lines), len(lines))
    for line, frame in zip(lines[begin:end], keyframes[begin:end], strict=True):
        if frame is None and line.strip():
            raise _malformed(line, "every line between the first and the last keyframe must be one")
    for line in (*lines[:begin], *lines[end:]):
        if places and _is_special(line):
            raise _malformed(line, "beside keyframes, a line that begins with a number and a colon must be one")
    head, tail = (tuple(map(_unescaped, part)) for part in (lines[:begin], lines[end:]))
    return TravelPrompt(
        head,
        tuple(frame for frame in keyframes if frame is not None),
        tail,
        has_backslashes=(*head, *tail) != (*lines[:begin], *lines[end:]),
    )


def check_travel(prompt: TravelPrompt, *, is_negative: bool = False) -> None:
    """Refuse what a travelling prompt can't hold; to be asked before a web UI takes the tags out of it.

    Raises:
        SettingsError: a tag such as `<lora:…>` in a keyframe; in the prompt AND; in the negative prompt values.
    """
    for frame in prompt.keyframes:
        tag = _TAG.search(frame.text)
        if tag is not None:
            raise _malformed(
                frame.line, f"{tag[0]} can't change from frame to frame; put the tag into a line before or after", ""
            )
        if is_negative and frame.key.values:
            raise _malformed(frame.line, "cfg and motion belong into the prompt, not into the negative prompt", "")
    parts = [*prompt.head, *(frame.text for frame in prompt.keyframes), *prompt.tail]
    if prompt.is_travel and not is_negative and any(_AND.search(part) for part in parts):
        raise SettingsError(
            "A prompt with keyframes must do without AND, got both. Join its parts by commas or remove keyframes."
        )


def _keyframe(line: str) -> Keyframe | None:
    """The keyframe that a line is, or None for text."""
    left, colon, right = line.partition(":")
    if not colon or _TIME.match(line):
        return None
    try:
        key = parse_key(left)
    except SettingsError as error:
        raise _malformed(line, str(error)) from error
    if key is None:
        if _NEARLY.fullmatch(left):
            raise _malformed(line, "it begins like a keyframe")
        return None
    text = right.strip()
    if not text and not key.values:
        raise _malformed(line, "a keyframe needs a text, or a value such as cfg=7")
    return Keyframe(key, text, line.strip())


def _is_special(line: str) -> bool:
    """True for a line that without a backslash is a keyframe, or may be refused."""
    left, colon, _ = line.partition(":")
    return bool(colon) and bool(
        _TIME.match(line) or _NEARLY.fullmatch(left) or _KEY_AND_WORDS.fullmatch(left) or _is_key(left)
    )


def _is_key(left: str) -> bool:
    try:
        return parse_key(left) is not None
    except SettingsError:
        return True


def _escaped(line: str) -> str:
    return "\\" + line if _is_special(line.strip().lstrip("\\")) else line


def _unescaped(line: str) -> str:
    match = _ESCAPED.fullmatch(line)
    return match[1] + match[2] if match and _is_special(match[2].lstrip("\\")) else line


def _malformed(line: str, reason: str, remedy: str = _FORM) -> SettingsError:
    return SettingsError(f"Prompt line '{line.strip()[:80]}': {reason.rstrip('.')}. {remedy}".rstrip())
