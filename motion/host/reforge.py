"""Adapter for reForge (Panchovix/stable-diffusion-webui-reForge 3b56b268).

Seen in the running host, on a CPU: hooks on the UNet's modules run, and see whole entries. Made to load models as with
too little memory, clips are the same, but one with an ordinary LoRA, a motion LoRA and a domain adapter differed by up
to 2 of 255, why is not known. Read in its code, beside what `motion.host.forge_objects` says:

* The schedule is in two places that must agree: samplers are made from `sd_model.alphas_cumprod`, and the UNet's
  timesteps come from `unet.model.model_sampling`, which other extensions replace while a model is loaded.
* `process_before_every_sampling` runs once in a hires pass, before which `forge_objects` is made anew.
* Block modifiers of a patcher are stored and never read.
"""

from __future__ import annotations

from typing import Any

import torch

from motion.host.forge_objects import ForgeObjectsHost


class ReForgeHost(ForgeObjectsHost):
    """`motion.host.adapter.HostAdapter` of one request."""

    name = "reForge"

    def _schedule(self) -> Any:
        return self._patcher().model.model_sampling

    def _overridden(self) -> list[tuple[Any, str]]:
        return [*super()._overridden(), (self._p.sd_model, "alphas_cumprod")]

    def _memory_management(self) -> Any:
        from ldm_patched.modules import model_management

        return model_management

    def _dtypes(self) -> tuple[torch.dtype, Any]:
        model = self._patcher().model
        return model.manual_cast_dtype or model.get_dtype(), model.get_dtype()
