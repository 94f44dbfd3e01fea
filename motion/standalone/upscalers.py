"""Upscalers in image space that need no network: `modules.upscaler`, `shared.sd_upscalers`."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


class Upscaler:
    """Upscales by one of Pillow's filters; without a filter the image stays as it is.

    Attributes:
        name: name in the lists of the page.
    """

    def __init__(self, name: str, resample: Image.Resampling | None) -> None:
        self.name = name
        self._resample = resample

    def upscale(self, img: Image.Image, scale: float, selected_model: str | None = None) -> Image.Image:
        """`img` `scale` times as wide and as high, both multiples of 8."""
        if self._resample is None:
            return img
        size = (int(img.width * scale) // 8 * 8, int(img.height * scale) // 8 * 8)
        return img if size == img.size else img.resize(size, resample=self._resample)


@dataclass(frozen=True)
class UpscalerData:
    """An entry of `shared.sd_upscalers`."""

    name: str
    data_path: str | None
    scaler: Upscaler
    scale: int = 4


def builtin_upscalers() -> list[UpscalerData]:
    """None, Lanczos and Nearest."""
    kinds = (("None", None), ("Lanczos", Image.Resampling.LANCZOS), ("Nearest", Image.Resampling.NEAREST))
    return [UpscalerData(name, None, Upscaler(name, resample)) for name, resample in kinds]
