"""Which device and which number formats a machine is best served by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from motion.errors import SettingsError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_CPU_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True)
class Precision:
    """Where a model computes, and in which formats.

    Attributes:
        device: device of all parts.
        dtype: format of text encoder, UNet and motion module.
        dtype_vae: format of the autoencoder; its decoder overflows in fp16.
    """

    device: torch.device
    dtype: torch.dtype
    dtype_vae: torch.dtype


def choose_precision(precision: str = "auto", *, device: str = "auto", vae: str = "fp32") -> Precision:
    """The machine's best device and formats, or the forced ones.

    Args:
        precision: one of PRECISIONS. "auto" is fp16 on a CUDA GPU, bf16 on a CPU that multiplies it in hardware
            (AMX or AVX512-BF16), fp32 elsewhere.
        device: one of DEVICES.
        vae: one of PRECISIONS but "auto".

    Raises:
        SettingsError: an unknown name, or a device that this machine lacks.
    """
    chosen = _choose_device(device)
    if precision == "auto":
        precision = _best_precision(chosen)
    return Precision(chosen, _dtype("precision", precision), _dtype("vae", vae))


def cpu_multiplies_bf16() -> bool:
    """True when this CPU has matrix instructions for bfloat16."""
    return _torch_reports_bf16() or not _BF16_CPU_FLAGS.isdisjoint(_cpu_flags())


def _choose_device(name: str) -> torch.device:
    if name not in DEVICES:
        raise SettingsError(f"`device` must be one of {', '.join(DEVICES)}, got {name!r}. Choose one of these.")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[name]:
        raise SettingsError(f"`device` {name} was asked for, but torch finds none here. Use auto or cpu.")
    return torch.device(name)


def _best_precision(device: torch.device) -> str:
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "fp32"


def _dtype(field: str, name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise SettingsError(f"`{field}` must be one of {', '.join(_DTYPES)}, got {name!r}. Choose one of these.")
    return _DTYPES[name]


def _torch_reports_bf16() -> bool:
    # Private in torch 2.13, hence the look at /proc/cpuinfo beside it.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(check is not None and check() for check in checks)


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
