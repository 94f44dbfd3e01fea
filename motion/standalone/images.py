"""Pictures in and out: `modules.images`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor, ImageOps

from motion.standalone import script_callbacks, shared
from motion.standalone.file_names import FilenameGenerator, create_exclusive, get_next_sequence_number
from motion.standalone.image_files import read_info_from_image, save_image_with_geninfo

__all__ = ["FilenameGenerator", "read_info_from_image", "save_image_with_geninfo"]

LANCZOS = Image.Resampling.LANCZOS


def image_grid(imgs: list[Image.Image], batch_size: int = 1, rows: int | None = None) -> Image.Image:
    """All images in one, as many columns as rows where it can; option n_rows sets the rows."""
    rows = min(rows or _grid_rows(len(imgs), batch_size), len(imgs))
    params = script_callbacks.ImageGridLoopParams(imgs, math.ceil(len(imgs) / rows), rows)
    script_callbacks.image_grid_callback(params)
    width, height = max(img.width for img in imgs), max(img.height for img in imgs)
    colour = ImageColor.getrgb(shared.opts.grid_background_color)
    grid = Image.new("RGB", (params.cols * width, params.rows * height), colour)
    for place, img in enumerate(params.imgs):
        row, column = divmod(place, params.cols)
        grid.paste(img, (column * width + (width - img.width) // 2, row * height + (height - img.height) // 2))
    return grid


def _grid_rows(count: int, batch_size: int) -> int:
    wanted = shared.opts.n_rows
    if wanted > 0:
        return int(wanted)
    if wanted == 0:
        return batch_size
    if shared.opts.grid_prevent_empty_spots:
        return next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    return round(math.sqrt(count))


def resize_image(
    resize_mode: int, im: Image.Image, width: int, height: int, upscaler_name: str | None = None
) -> Image.Image:
    """`im` in another size.

    Args:
        resize_mode: 0 stretches; 1 keeps the proportions and cuts what is too much; 2 keeps them and fills the rest
            with the picture's edges.
        im: the picture.
        width: in pixels.
        height: in pixels.
        upscaler_name: for enlarging; default is the option upscaler_for_img2img, else Lanczos.
    """
    name = upscaler_name or shared.opts.upscaler_for_img2img
    if resize_mode == 0:
        return _resized(im, width, height, name)
    wider = width / height > im.width / im.height
    if wider == (resize_mode == 1):
        size = (width, im.height * width // im.width)
    else:
        size = (im.width * height // im.height, height)
    resized = _resized(im, *size, name)
    left, top = width // 2 - size[0] // 2, height // 2 - size[1] // 2
    result = Image.new("RGB", (width, height))
    result.paste(resized, (left, top))
    if resize_mode != 1:
        _fill_edges(result, resized, left, top)
    return result


def _resized(im: Image.Image, width: int, height: int, upscaler_name: str | None) -> Image.Image:
    scale = max(width / im.width, height / im.height)
    if upscaler_name not in (None, "None") and im.mode != "L" and scale > 1:
        known = {entry.name: entry for entry in shared.sd_upscalers}
        # As in A1111, an upscaler that isn't there means the first, which leaves the work to Lanczos below.
        entry = known.get(str(upscaler_name), shared.sd_upscalers[0])
        im = entry.scaler.upscale(im, scale, entry.data_path)
    return im if im.size == (width, height) else im.resize((width, height), resample=LANCZOS)


def _fill_edges(result: Image.Image, resized: Image.Image, left: int, top: int) -> None:
    """Stretch the outermost rows or columns of `resized` over the empty parts of `result`."""
    width, height = result.size
    if top > 0:
        bottom = top + resized.height
        result.paste(resized.crop((0, 0, width, 1)).resize((width, top)), (0, 0))
        edge = resized.crop((0, resized.height - 1, width, resized.height))
        result.paste(edge.resize((width, height - bottom)), (0, bottom))
    elif left > 0:
        right = left + resized.width
        result.paste(resized.crop((0, 0, 1, height)).resize((left, height)), (0, 0))
        edge = resized.crop((resized.width - 1, 0, resized.width, height))
        result.paste(edge.resize((width - right, height)), (right, 0))


def save_image(
    image: Image.Image,
    path: str | os.PathLike[str],
    basename: str,
    seed: int | None = None,
    prompt: str | None = None,
    extension: str = "png",
    info: str | None = None,
    short_filename: bool = False,
    no_prompt: bool = False,
    grid: bool = False,
    pnginfo_section_name: str = "parameters",
    p: Any = None,
    existing_info: dict[str, Any] | None = None,
    forced_filename: str | None = None,
    suffix: str = "",
    save_to_dirs: bool | None = None,
) -> tuple[str, str | None]:
    """Save a picture under a numbered name that is not taken; callbacks may change picture, name and text.

    Args:
        image: the picture.
        path: folder; made if missing.
        basename: first part of the name; may be empty.
        seed: for the name's pattern.
        prompt: for the name's pattern.
        extension: without the dot.
        info: infotext.
        short_filename: no seed or prompt in the name.
        no_prompt: no subfolder.
        grid: the picture is a grid.
        pnginfo_section_name: text entry that receives `info`.
        p: processing object, for the name's pattern and callbacks.
        existing_info: further text entries.
        forced_filename: name without extension, instead of the pattern.
        suffix: last part of the name.
        save_to_dirs: whether to use a subfolder; default: the option.

    Returns:
        (path of the picture, path of the text file or None).
    """
    names = FilenameGenerator(p, seed, prompt, image, basename=basename)
    if save_to_dirs is None:
        save_to_dirs = shared.opts.grid_save_to_dirs if grid else shared.opts.save_to_dirs and not no_prompt
    folder = os.path.join(os.fspath(path), _subfolder(names) if save_to_dirs else "")
    os.makedirs(folder, exist_ok=True)
    name = forced_filename or _numbered_name(folder, basename, _decoration(names, seed, short_filename, suffix))
    entries = {**(existing_info or {}), **({} if info is None else {pnginfo_section_name: info})}
    params = script_callbacks.ImageSaveParams(image, p, os.path.join(folder, f"{name}.{extension}"), entries)
    script_callbacks.before_image_saved_callback(params)
    text_file = _write(params, pnginfo_section_name)
    image.already_saved_as = params.filename  # type: ignore[attr-defined]
    script_callbacks.image_saved_callback(params)
    return params.filename, text_file


def _subfolder(names: FilenameGenerator) -> str:
    pattern = shared.opts.directories_filename_pattern or "[prompt_words]"
    return names.apply(pattern).lstrip(" ").rstrip("\\ /")


def _decoration(names: FilenameGenerator, seed: int | None, short_filename: bool, suffix: str) -> str:
    if short_filename or seed is None:
        return suffix
    default = "[seed]" if shared.opts.save_to_dirs else "[seed]-[prompt_spaces]"
    return names.apply(shared.opts.samples_filename_pattern or default) + suffix


def _numbered_name(folder: str, basename: str, decoration: str) -> str:
    if decoration and not shared.opts.save_images_add_number:
        return decoration
    number = get_next_sequence_number(folder, basename)
    numbered = f"{basename}-{number:04}" if basename else f"{number:05}"
    return f"{numbered}-{decoration}" if decoration else numbered


def _write(params: script_callbacks.ImageSaveParams, section: str) -> str | None:
    """Write the picture under a name that is free, and the text file, whose name is returned, if that is wanted.

    The empty file under the final name keeps other writers off; the picture then replaces it as a whole.
    """
    text = params.pnginfo.get(section)
    params.filename = str(create_exclusive(Path(params.filename)))
    stem, extension = os.path.splitext(params.filename)
    temporary = f"{params.filename}.tmp"
    try:
        save_image_with_geninfo(params.image, text, temporary, extension, params.pnginfo, section)
        os.replace(temporary, params.filename)
    except BaseException:
        for leftover in (temporary, params.filename):
            Path(leftover).unlink(missing_ok=True)
        raise
    if not shared.opts.save_txt or text is None:
        return None
    Path(f"{stem}.txt").write_text(f"{text}\n", encoding="utf8")
    return f"{stem}.txt"


def flatten(img: Image.Image, bgcolor: str) -> Image.Image:
    """An RGB picture; transparent parts show `bgcolor` ("#ffffff")."""
    if img.mode in ("RGBA", "LA", "PA") or "transparency" in img.info:
        img = img.convert("RGBA")
        background = Image.new("RGBA", img.size, bgcolor)
        background.alpha_composite(img)
        img = background
    return img.convert("RGB")


def read(fp: Any, **kwargs: Any) -> Image.Image:
    """Open a picture, turned as its EXIF says."""
    image = Image.open(fp, **kwargs)
    ImageOps.exif_transpose(image, in_place=True)
    return image
