"""Chooses the adapter of a request by what its model can do, never by a web UI's name or version."""

from __future__ import annotations

from typing import Any

from motion.errors import InjectionError
from motion.host.a1111 import A1111Host
from motion.host.adapter import HostAdapter
from motion.host.forge import ForgeHost
from motion.host.reforge import ReForgeHost


def adapter_for(p: Any, num_frames: int) -> HostAdapter:
    """The adapter for the model that `p` is about to sample; call it from the hook `process` on.

    Args:
        p: the web UI's processing object.
        num_frames: frames of the clip.

    Raises:
        InjectionError: no adapter knows this kind of model.
    """
    sd_model = p.sd_model
    if hasattr(sd_model, "forge_objects"):
        model = getattr(sd_model.forge_objects.unet, "model", None)
        if _is_schedule(getattr(model, "predictor", None)):
            return ForgeHost(p, num_frames)
        if _is_schedule(getattr(model, "model_sampling", None)):
            return ReForgeHost(p, num_frames)
    elif hasattr(getattr(sd_model, "model", None), "diffusion_model"):
        return A1111Host(p, num_frames)
    raise InjectionError(
        f"Clips are made with Stable Diffusion 1.5 and SDXL checkpoints, got a model of the kind "
        f"{type(sd_model).__name__} that has no noise schedule to set. Choose another checkpoint."
    )


def _is_schedule(module: Any) -> bool:
    """True for a schedule in discrete steps that can be set; Flux and other flow models have none."""
    return all(hasattr(module, name) for name in ("set_sigmas", "sigmas", "log_sigmas"))
