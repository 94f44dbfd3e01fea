"""Names of saved pictures: patterns and numbers; part of `modules.images`."""

from __future__ import annotations

import datetime
import hashlib
import itertools
import os
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from motion.standalone import shared

MAX_PART_LENGTH = 128
_FORBIDDEN = str.maketrans(dict.fromkeys('#<>:"/\\|?*\n\r\t', "_"))
_PATTERN = re.compile(r"\[([^\[\]<>]+)((?:<[^>]*>)*)\]")
_WORD_BREAKS = re.compile(rf"[\s{re.escape(string.punctuation)}]+")


def sanitize_filename_part(text: str | None, replace_spaces: bool = True) -> str:
    """`text` without what some file system forbids; at most 128 characters."""
    text = (text or "").replace(" ", "_") if replace_spaces else text or ""
    return text.translate(_FORBIDDEN).lstrip(" ")[:MAX_PART_LENGTH].rstrip(" .")


class FilenameGenerator:
    """Fills patterns such as "[seed]-[prompt_words]"; unknown ones stay as they are."""

    def __init__(self, p: Any, seed: Any, prompt: str | None, image: Image.Image, basename: str = "") -> None:
        self.p = p
        self.seed = seed
        self.prompt = prompt or ""
        self.image = image
        self.basename = basename
        self.replacements: dict[str, Callable[..., Any]] = {
            "basename": lambda: self.basename or "img",
            "seed": lambda: "" if self.seed is None else self.seed,
            "seed_first": lambda: self.seed if self.p.batch_size == 1 else self.p.all_seeds[0],
            "seed_last": lambda: self.p.all_seeds[-1],
            "steps": lambda: self.p.steps,
            "cfg": lambda: self.p.cfg_scale,
            "width": lambda: self.image.width,
            "height": lambda: self.image.height,
            "sampler": lambda: sanitize_filename_part(self.p.sampler_name, replace_spaces=False),
            "scheduler": lambda: sanitize_filename_part(self.p.scheduler, replace_spaces=False),
            "model_hash": lambda: self.p.sd_model_hash,
            "model_name": lambda: sanitize_filename_part(self.p.sd_model_name, replace_spaces=False),
            "date": lambda: datetime.datetime.now().strftime("%Y-%m-%d"),
            "datetime": lambda form="%Y%m%d%H%M%S", *_: sanitize_filename_part(
                datetime.datetime.now().strftime(form), replace_spaces=False
            ),
            "job_timestamp": lambda: shared.state.job_timestamp,
            "prompt": lambda: sanitize_filename_part(self.prompt),
            "prompt_spaces": lambda: sanitize_filename_part(self.prompt, replace_spaces=False),
            "prompt_words": self._prompt_words,
            "prompt_hash": lambda length="8": hashlib.sha256(self.prompt.encode()).hexdigest()[: int(length)],
            "batch_number": lambda: self.p.batch_index + 1,
            "batch_size": lambda: self.p.batch_size,
            "generation_number": lambda: self.p.iteration * self.p.batch_size + self.p.batch_index + 1,
            "clip_skip": lambda: shared.opts.CLIP_stop_at_last_layers,
            "denoising": lambda: self.p.denoising_strength or "",
            "none": lambda: "",
        }

    def apply(self, x: str) -> str:
        """Pattern -> name part."""
        return _PATTERN.sub(self._replace, x)

    def _replace(self, match: re.Match[str]) -> str:
        function = self.replacements.get(match.group(1).lower())
        if function is None:
            return match.group(0)
        try:
            return str(function(*re.findall(r"<([^>]*)>", match.group(2))))
        except (AttributeError, TypeError, ValueError):  # no such thing for this picture, or a bad argument
            return match.group(0)

    def _prompt_words(self) -> str:
        words = [word for word in _WORD_BREAKS.split(self.prompt) if word] or ["empty"]
        return sanitize_filename_part(" ".join(words[: shared.opts.directories_max_prompt_words]), replace_spaces=False)


def get_next_sequence_number(path: str | os.PathLike[str], basename: str) -> int:
    """One more than the highest number of the files "<basename>-<number>…" in a folder; 0 for none."""
    prefix = re.compile(rf"{re.escape(f'{basename}-' if basename else '')}(\d+)(?:[-.]|$)")
    numbers = [int(match.group(1)) for match in map(prefix.match, os.listdir(path)) if match]
    return max(numbers, default=-1) + 1


def create_exclusive(path: Path) -> Path:
    """Make an empty file that did not exist: `path`, else "<stem>-1", "<stem>-2" …; safe with several writers."""
    for number in itertools.count():
        candidate = path if number == 0 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            candidate.open("xb").close()
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("itertools.count() has no end")
