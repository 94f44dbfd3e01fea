"""What one generation really did: steps, UNet calls, temporal layers, schedule, images as decoded."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from contract_probe.parts import alphas_cumprod_of, unet_of


class Recorder:
    """Filled while a generation runs; `summary` is what the tests read."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.steps: list[dict] = []
        self.unet_calls: list[dict] = []
        self.temporal_calls: list[dict] = []
        self.images: list[np.ndarray] = []
        self.seconds_in_sampling = 0.0
        self.hook_counts: list[int] = []

    def summary(self) -> dict:
        """Everything that JSON can hold."""
        return {name: value for name, value in vars(self).items() if name != "images"}

    @contextmanager
    def around_sampling(self, p):
        """Count UNet calls and look into the temporal layers; all gone when the block ends."""
        unet = unet_of(p.sd_model)
        self.hook_counts.append(count_hooks(unet))
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.callback(unet.register_forward_pre_hook(self._on_unet, with_kwargs=True).remove)
            stack.callback(torch.nn.modules.module.register_module_forward_pre_hook(self._on_any_module).remove)
            try:
                yield
            finally:
                self.seconds_in_sampling += time.perf_counter() - began
        self.hook_counts.append(count_hooks(unet))

    def on_step(self, params) -> None:
        """`on_cfg_denoiser`."""
        denoiser = params.denoiser
        wrap = getattr(denoiser.p.sampler, "model_wrap", None)
        table = getattr(wrap, "sigmas", None)
        kept = alphas_cumprod_of(denoiser.p.sd_model)
        self.steps.append(
            {
                "sigma": float(params.sigma[0]),
                "rows": params.x.shape[0],
                "cond_tokens": list(_tensor_of(params.text_cond).shape[:2]),
                "uncond_tokens": list(_tensor_of(params.text_uncond).shape[:2]),
                "hires": bool(getattr(denoiser.p, "is_hr_pass", False)),
                "alphas_cumprod": [float(kept[0]), float(kept[499]), float(kept[999])],
                "sampler": type(denoiser.p.sampler).__name__,
                "sampler_sigmas": None if table is None else [float(table[0]), float(table[-1])],
            }
        )

    def on_decoded(self, images) -> None:
        """`postprocess_batch`."""
        self.images.append(images.detach().float().cpu().numpy().copy())

    def _on_unet(self, unet, args, kwargs) -> None:
        x = args[0] if args else kwargs["x"]
        self.unet_calls.append({"rows": x.shape[0], "height": x.shape[2], "width": x.shape[3]})

    def _on_any_module(self, module, args) -> None:
        if type(module).__name__ == "TemporalTransformer" and len(args) > 1:
            self.temporal_calls.append({"rows": args[0].shape[0], "num_frames": int(args[1])})


def count_hooks(root: torch.nn.Module) -> int:
    """Forward hooks and pre-hooks of a network and all it holds."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in root.modules())


def _tensor_of(cond):
    return next(iter(cond.values())) if isinstance(cond, dict) else cond
