"""What a known format of weight files is made of: a detector, words for people, and for motion modules a key map."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from motion.checkpoints.motion_families import MotionFamily
from motion.models.site_module import SiteModule

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Key -> shape of every tensor of a file."""

Kind = Literal[
    "motion_module", "motion_lora", "domain_adapter", "sparse_control", "svd", "checkpoint", "lora", "unknown"
]

KeyMap = Callable[[Iterable[str]], Mapping[str, str]]
"""Keys of a file -> key of our network -> key of the file that fills it. One tensor may fill several keys; keys that
are no part of the motion module are left out."""


@dataclass(frozen=True)
class MotionLayout:
    """What tells families of motion modules apart by content.

    Attributes:
        num_levels: down levels that have motion modules: 4 in SD1.5, 3 in SDXL.
        has_mid: the middle block has one too.
        table_rows: rows of the position tables; None where the file has none.
    """

    num_levels: int
    has_mid: bool
    table_rows: int | None


@dataclass(frozen=True)
class FileFormat:
    """A format of weight files.

    Attributes:
        id: short name.
        title: what a message calls such a file, with its article.
        kind: what such a file is for.
        matches: key -> shape of a file; true for files of this format only.
        base: the Stable Diffusion family it belongs to, "sd15" or "sdxl"; None where none or not known.
        refusal: why it can't serve as a motion module, as a clause after the title.
        remedy: what to do with such a file instead.
        usable: it has a use of its own here.
    """

    id: str
    title: str
    kind: Kind
    matches: Callable[[Shapes], bool]
    base: str | None = None
    refusal: str = "which is no motion module"
    remedy: str = ""
    usable: bool = False


@dataclass(frozen=True)
class MotionFormat:
    """A spelling of motion module files.

    Attributes:
        id: short name.
        title: what a message calls such a file, with its article.
        matches: key -> shape of a file; true for files of this format only.
        rename: which of the file's tensors is which of ours.
        families: ids of the families that a file of this layout can belong to, the most common first. One: its content
            decides. Several: content can't tell, the file's name is asked. None: no known UNet has this layout.
    """

    id: str
    title: str
    matches: Callable[[Shapes], bool]
    rename: KeyMap
    families: Callable[[MotionLayout], tuple[str, ...]]


@dataclass(frozen=True)
class CustomMotion:
    """A kind of motion module with a network of its own, as another package registers it.

    Attributes:
        title: what a message calls such a file, with its article.
        family: what its files have in common; the family's id is the format's too.
        matches: key -> shape of a file; true for files of this kind only.
        rename: which of the file's tensors is which of the network. Keys of the network are a site's name, such as
            "down_blocks.0.motion_modules.1", "mid_block.motion_modules.0" or "up_blocks.3.motion_modules.2", a dot,
            and the key that the tensor has in that site's module.
        build: makes the module of one site from the site's name and the shapes of its tensors, by their keys in the
            module. It runs on the meta device, where tensors have shapes but no values; the file fills them.
        source: package and version that registered it; filled in when it is found.
    """

    title: str
    family: MotionFamily
    matches: Callable[[Shapes], bool]
    rename: KeyMap
    build: Callable[[str, Shapes], SiteModule]
    source: str = ""

    @property
    def id(self) -> str:
        """Short name."""
        return self.family.id


AnyFormat = FileFormat | MotionFormat | CustomMotion
