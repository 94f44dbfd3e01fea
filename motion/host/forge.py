"""Adapter for Forge (lllyasviel/stable-diffusion-webui-forge dfdcbab6).

Seen in the running host, on a CPU, beside what `motion.host.forge_objects` says:

* The schedule is `unet.model.predictor`, and k-diffusion samplers read it while they run.
* The model is loaded by the first request, after its setup and before_process: until then `p.sd_model` is a stand-in.
* The API answers with an exception's own `status_code` and `detail`; the message is called `message`, not `errors`.
* The API has no default for `hr_additional_modules`, without which its own hires pass raises a TypeError.
* It strips prompts, and writes what is left of them into the infotext.
* The autoencoder joins the loaded models when it is first needed, which another extension's check may take for a trace.
* With all of the UNet's layers in its "CPU swap", or two fifths of them, a clip with LoRA, motion LoRA and domain
  adapter is the same to the byte: swapped layers cast their weights when they run, whatever hooks they have. The swap
  was forced: on a CPU --always-offload-from-vram has no effect, and the flags for low and no VRAM are not allowed.

Read in its code:

* DDIM, PLMS and UniPC copy the schedule into `sd_model.alphas_cumprod` when they are made, and leave it there; LCM
  copies it into itself.
* `process_before_every_sampling` runs twice in a hires pass, and `forge_objects` is made anew in between.
* Linear layers cast their weight to the input's type when they run, from fp8 too; 4-bit and GGUF weights are packed, so
  a layer's shape is told by `in_features` and `out_features` alone.
* DDIM gives σ to `on_cfg_denoiser`, not timesteps, and its rows are the frames, without unconds.
"""

from __future__ import annotations

from typing import Any

import torch

from motion.host.forge_objects import ForgeObjectsHost


class ForgeHost(ForgeObjectsHost):
    """`motion.host.adapter.HostAdapter` of one request."""

    name = "Forge"

    def _schedule(self) -> Any:
        return self._patcher().model.predictor

    def _memory_management(self) -> Any:
        from backend import memory_management

        return memory_management

    def _dtypes(self) -> tuple[torch.dtype, Any]:
        model = self._patcher().model
        return model.computation_dtype, model.storage_dtype
