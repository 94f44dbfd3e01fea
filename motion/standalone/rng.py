"""`modules.rng`: starting and step noise of a batch, drawn per image so that a batch equals single images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from motion.errors import SettingsError
from motion.standalone import devices, shared


def randn(seed: int, shape: Sequence[int], generator: torch.Generator | None = None) -> torch.Tensor:
    """Normal noise of `shape`, fp32, on the host's device.

    As in the web UI, torch's global generator is seeded with `seed` even when `generator` makes the noise.
    """
    manual_seed(seed)
    return randn_without_seed(shape, generator)


def randn_local(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """First normal noise of `seed`; leaves torch's global generator alone."""
    return randn_without_seed(shape, create_generator(seed))


def randn_like(x: torch.Tensor) -> torch.Tensor:
    """Normal noise like `x` from torch's global CPU generator."""
    return torch.randn(x.shape, dtype=x.dtype, device="cpu").to(x.device)


def randn_without_seed(shape: Sequence[int], generator: torch.Generator | None = None) -> torch.Tensor:
    """Next normal noise of `generator` (default: torch's global one), fp32, on the host's device."""
    return torch.randn(tuple(shape), device="cpu", generator=generator).to(devices.device)


def manual_seed(seed: int) -> None:
    """Seed torch's global generator."""
    torch.manual_seed(int(seed))


def create_generator(seed: int) -> torch.Generator:
    """CPU generator of one image: the same pictures on every machine.

    Raises:
        SettingsError: option `randn_source` asks for something else.
    """
    source = shared.opts.randn_source
    if source != "CPU":
        raise SettingsError(f"This host draws noise on the CPU only, got randn_source {source!r}. Set it to CPU.")
    return torch.Generator("cpu").manual_seed(int(seed))


def slerp(val: float, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Spherical interpolation from `low` (val 0) to `high` (val 1); c h w, the angle is taken per column over h.

    For almost parallel tensors the web UI mixes linearly with swapped ends; seeds depend on it.
    """
    cosine = (low / torch.norm(low, dim=1, keepdim=True) * (high / torch.norm(high, dim=1, keepdim=True))).sum(1)
    if cosine.mean() > 0.9995:
        return low * val + high * (1 - val)
    angle = torch.acos(cosine)
    weight_low = torch.sin((1.0 - val) * angle) / torch.sin(angle)
    weight_high = torch.sin(val * angle) / torch.sin(angle)
    return weight_low.unsqueeze(1) * low + weight_high.unsqueeze(1) * high


class ImageRNG:
    """Noise of one batch. The first `next()` is the starting noise, later ones the noise of ancestral steps.

    Attributes:
        shape: c h w of one latent.
        seeds: one per image.
        subseeds: variation seeds, or None.
        subseed_strength: 0 (seed only) to 1 (subseed only).
        seed_resize_from_h: height in pixels of the picture that the seed comes from, 0 for none.
        seed_resize_from_w: its width.
        generators: one per image.
    """

    def __init__(
        self,
        shape: Sequence[int],
        seeds: Sequence[int],
        subseeds: Sequence[int] | None = None,
        subseed_strength: float = 0.0,
        seed_resize_from_h: int = 0,
        seed_resize_from_w: int = 0,
    ) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.seeds = seeds
        self.subseeds = subseeds
        self.subseed_strength = subseed_strength
        self.seed_resize_from_h = seed_resize_from_h
        self.seed_resize_from_w = seed_resize_from_w
        self.generators = [create_generator(seed) for seed in seeds]
        self.is_first = True

    def first(self) -> torch.Tensor:
        """Starting noise, b c h w."""
        noise = torch.stack([self._first_of_image(index) for index in range(len(self.seeds))])
        delta = int(shared.opts.eta_noise_seed_delta or 0)
        if delta:
            self.generators = [create_generator(seed + delta) for seed in self.seeds]
        return noise.to(devices.device)

    def next(self) -> torch.Tensor:
        """Next noise of every image, b c h w."""
        if self.is_first:
            self.is_first = False
            return self.first()
        noise = [randn_without_seed(self.shape, generator) for generator in self.generators]
        return torch.stack(noise).to(devices.device)

    def _first_of_image(self, index: int) -> torch.Tensor:
        seed, generator = self.seeds[index], self.generators[index]
        source = self._source_shape()
        # Drawn before the seed's own noise: both seed torch's global generator, and the last one wins.
        variation = self._variation(index, source)
        noise = randn(seed, source, None if source != self.shape else generator)
        if variation is not None:
            noise = slerp(self.subseed_strength, noise, variation)
        if source == self.shape:
            return noise
        return paste_centred(noise, onto=randn(seed, self.shape, generator))

    def _source_shape(self) -> tuple[int, ...]:
        if self.seed_resize_from_h <= 0 or self.seed_resize_from_w <= 0:
            return self.shape
        return (self.shape[0], int(self.seed_resize_from_h) // 8, int(self.seed_resize_from_w) // 8)

    def _variation(self, index: int, shape: tuple[int, ...]) -> torch.Tensor | None:
        if self.subseeds is None or self.subseed_strength == 0:
            return None
        return randn(self.subseeds[index] if index < len(self.subseeds) else 0, shape)


def paste_centred(noise: torch.Tensor, *, onto: torch.Tensor) -> torch.Tensor:
    """The middle of c h w `noise` in the middle of c H W `onto`, cut or framed as the sizes ask for."""
    result = onto.clone()
    (to_y, from_y, height), (to_x, from_x, width) = (_overlap(noise.shape[axis], onto.shape[axis]) for axis in (1, 2))
    result[:, to_y : to_y + height, to_x : to_x + width] = noise[:, from_y : from_y + height, from_x : from_x + width]
    return result


def _overlap(source: int, target: int) -> tuple[int, int, int]:
    """(first index in the target, first index in the source, length) along one axis."""
    margin = (target - source) // 2
    if margin >= 0:
        return margin, 0, source
    return 0, -margin, source + 2 * margin
