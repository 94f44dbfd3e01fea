"""The spellings in which motion modules are published: detector, key map and families of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from motion.checkpoints.format_types import MotionFormat, MotionLayout, Shapes
from motion.checkpoints.motion_families import FAMILIES_WITH_MIDDLE

_LEVEL = r"(?:(?:down|up)_blocks\.\d+|mid_block)\."
_BLOCK = r"transformer_blocks\.\d+\."
_FRAME = r"(?:norm|proj_in|proj_out)\.(?:weight|bias)"
_FEED_FORWARD = r"ff\.net\.\d\.(?:proj\.)?(?:weight|bias)"
_LINEARS = r"to_(?:[qkv]\.weight|out\.0\.(?:weight|bias))"
_OWN_PART = (
    rf"(?:{_FRAME}|{_BLOCK}(?:attention_blocks\.\d+\.(?:{_LINEARS}|pos_encoder\.(?:pe|positional_encoding))"
    rf"|(?:norms\.\d+|ff_norm)\.(?:weight|bias)|{_FEED_FORWARD}))"
)
_DIFFUSERS_PART = (
    rf"(?:{_FRAME}|{_BLOCK}(?:attn[12]\.{_LINEARS}|pos_embed\.pe|norm[123]\.(?:weight|bias)|{_FEED_FORWARD}))"
)
_ANIMATEDIFF_KEY = re.compile(rf"{_LEVEL}motion_modules\.\d+\.temporal_transformer\.{_OWN_PART}")
_HOTSHOT_KEY = re.compile(rf"({_LEVEL})temporal_attentions\.(\d+)\.({_OWN_PART})")
_DIFFUSERS_KEY = re.compile(rf"({_LEVEL}motion_modules\.\d+\.)({_DIFFUSERS_PART})")
_SPATIAL_KEY = re.compile(
    r"(?:conv_in|conv_out|conv_norm_out|time_proj|time_embedding|add_time_proj|add_embedding|class_embedding)\."
    rf"|{_LEVEL}(?:resnets|attentions|downsamplers|upsamplers)\."
)


def _consists_of(shapes: Shapes, motion: re.Pattern[str], *, spatial: bool | None) -> bool:
    """Motion keys, and beside them those of an image UNet in diffusers' layout.

    Args:
        shapes: key -> shape of the file.
        motion: pattern of a motion key.
        spatial: whether there must be keys of the UNet; None allows both.
    """
    others = [key for key in shapes if motion.fullmatch(key) is None]
    if len(others) == len(shapes) or (spatial is not None and bool(others) != spatial):
        return False
    # A UNet with more than noisy latents at its input (PIA has 9 channels) is another model.
    plain_input = shapes.get("conv_in.weight", (0, 4))[1:2] == (4,)
    return plain_input and all(_SPATIAL_KEY.match(key) and "lora" not in key for key in others)


def _keep_animatediff(keys: Iterable[str]) -> Mapping[str, str]:
    return {key: key for key in keys if _ANIMATEDIFF_KEY.fullmatch(key)}


def _rename_hotshot(keys: Iterable[str]) -> Mapping[str, str]:
    found = {key: match for key in keys if (match := _HOTSHOT_KEY.fullmatch(key))}
    return {
        f"{match[1]}motion_modules.{match[2]}.temporal_transformer."
        + match[3].replace("pos_encoder.positional_encoding", "pos_encoder.pe"): key
        for key, match in found.items()
    }


def _rename_diffusers(keys: Iterable[str]) -> Mapping[str, str]:
    """Our keys of a file in diffusers' spelling, where the attentions of a block share one position table."""
    names = set(keys)
    renamed: dict[str, str] = {}
    for key in names:
        if (match := _DIFFUSERS_KEY.fullmatch(key)) is None:
            continue
        block, _, part = match[2].rpartition("pos_embed.")
        if part == "pe":
            attentions = [index for index in (0, 1) if f"{match[1]}{block}attn{index + 1}.to_q.weight" in names]
            ours = [f"{block}attention_blocks.{index}.pos_encoder.pe" for index in attentions]
        else:
            ours = [_rename_diffusers_part(match[2])]
        renamed |= {f"{match[1]}temporal_transformer.{name}": key for name in ours}
    return renamed


def _rename_diffusers_part(part: str) -> str:
    part = re.sub(r"\.attn([12])\.", lambda match: f".attention_blocks.{int(match[1]) - 1}.", part)
    part = re.sub(r"\.norm([12])\.", lambda match: f".norms.{int(match[1]) - 1}.", part)
    return part.replace(".norm3.", ".ff_norm.")


def _families(layout: MotionLayout) -> tuple[str, ...]:
    """Families by what AnimateDiff's own files show: v1 and HotShot-XL have 24 positions, AnimateLCM stores none."""
    rows = layout.table_rows
    if layout.num_levels == 3 and not layout.has_mid:
        if rows is None:
            return ("sdxl_beta", "hotshot_xl")
        return ("hotshot_xl",) if rows == 24 else ("sdxl_beta",)
    if layout.num_levels != 4:
        return ()
    if layout.has_mid:
        return ("animate_lcm",) if rows is None else ("sd15_v2",)
    if rows is None:
        return ("sd15_v3", "sd15_v1")
    return ("sd15_v1",) if rows == 24 else ("sd15_v3",)


def _families_of_any_writer(layout: MotionLayout) -> tuple[str, ...]:
    """As `_families`, for writers that store position tables, or leave them out, for every family alike."""
    if layout.num_levels == 4 and layout.has_mid:
        return FAMILIES_WITH_MIDDLE
    return _families(layout)


def _families_of_training(layout: MotionLayout) -> tuple[str, ...]:
    return _families_of_any_writer(layout) if layout.table_rows is None else _families(layout)


def _hotshot_families(layout: MotionLayout) -> tuple[str, ...]:
    return ("hotshot_xl",) if layout.num_levels == 3 and not layout.has_mid else ()


MOTION_FORMATS: tuple[MotionFormat, ...] = (
    MotionFormat(
        "animatediff",
        "a motion module in AnimateDiff's spelling",
        lambda shapes: _consists_of(shapes, _ANIMATEDIFF_KEY, spatial=False),
        _keep_animatediff,
        _families,
    ),
    MotionFormat(
        "animatediff_training",
        "a training checkpoint with motion modules and a UNet",
        lambda shapes: _consists_of(shapes, _ANIMATEDIFF_KEY, spatial=True),
        _keep_animatediff,
        _families_of_training,
    ),
    MotionFormat(
        "hotshot",
        "a motion module in HotShot-XL's spelling",
        lambda shapes: _consists_of(shapes, _HOTSHOT_KEY, spatial=None),
        _rename_hotshot,
        _hotshot_families,
    ),
    MotionFormat(
        "diffusers",
        "a motion adapter in diffusers' spelling",
        lambda shapes: _consists_of(shapes, _DIFFUSERS_KEY, spatial=None),
        _rename_diffusers,
        _families_of_any_writer,
    ),
)
