"""`modules.devices`: device and number formats of the running host, under the web UI's names."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from motion.errors import MotionError
from motion.models.precision import Precision, choose_precision
from motion.standalone import host_state, shared

device: torch.device
dtype: torch.dtype
dtype_unet: torch.dtype
dtype_inference: torch.dtype
dtype_vae: torch.dtype

cpu = torch.device("cpu")
unet_needs_upcast = False


class NansException(MotionError):  # noqa: N818 - the web UI's name
    """A network's output holds NaN."""


def configure(precision: Precision) -> None:
    """Set the running host's device and formats; models loaded from now on follow them."""
    host_state.current().precision = precision


def current_precision() -> Precision:
    """Device and formats of the running host; the command line's, or the machine's best, unless configured."""
    host = host_state.current()
    if host.precision is None:
        flags = shared.cmd_opts
        name = "fp32" if flags.no_half or flags.precision == "full" else "fp16" if flags.precision == "half" else "auto"
        on_cpu = not {"all", "sd"}.isdisjoint(flags.use_cpu)
        host.precision = choose_precision(name, device="cpu" if on_cpu else "auto")
    return host.precision


def get_optimal_device() -> torch.device:
    """Device of the models."""
    return current_precision().device


def get_optimal_device_name() -> str:
    """Name of the models' device, e.g. "cuda"."""
    return str(current_precision().device)


def autocast(disable: bool = False) -> AbstractContextManager[Any]:
    """Context in which fp32 inputs meet half-precision weights; no change when the host computes in fp32."""
    precision = current_precision()
    if disable or precision.dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(precision.device.type, dtype=precision.dtype)


def without_autocast(disable: bool = False) -> AbstractContextManager[Any]:
    """Context that switches `autocast` off inside it."""
    device_type = current_precision().device.type
    if disable or not torch.is_autocast_enabled(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def torch_gc() -> None:
    """Give the accelerator's cached memory back."""
    device_type = current_precision().device.type
    if device_type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.ipc_collect()  # type: ignore[no-untyped-call]
    elif device_type == "mps":
        torch.mps.empty_cache()


def test_for_nans(x: torch.Tensor, where: str) -> None:
    """Refuse an output that holds NaN.

    Args:
        x: any shape. Only the first element is looked at, as in the web UI: NaN spreads through a whole picture.
        where: "unet" or "vae", for the message.

    Raises:
        NansException: NaN was found.
    """
    if shared.cmd_opts.disable_nan_check or not torch.isnan(x.flatten()[0]):
        return
    network = {"unet": "the UNet", "vae": "the VAE"}.get(where, where)
    raise NansException(
        f"Expected numbers from {network}, got NaN: {str(x.dtype).removeprefix('torch.')} is too narrow for this "
        "model, or the checkpoint is damaged. Start with --precision fp32.",
        status_code=500,
    )


host_state.forward(
    __name__,
    {
        "device": lambda: current_precision().device,
        "dtype": lambda: current_precision().dtype,
        "dtype_unet": lambda: current_precision().dtype,
        "dtype_inference": lambda: current_precision().dtype,
        "dtype_vae": lambda: current_precision().dtype_vae,
    },
)
