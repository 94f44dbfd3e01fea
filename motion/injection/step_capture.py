"""What a UNet call knows beside its latents, collected by hooks for the modules that ask for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from motion.errors import InjectionError
from motion.injection.frame_axis import CallRows
from motion.models.site_module import UNetStep


class StepCapture:
    """Timesteps and context from the arguments of the UNet, the time embedding from those of a ResBlock.

    Every LDM-layout UNet (ldm, sgm, Forge's, reForge's, ours) is called with (x, timesteps, context, …), by place or
    by name, and calls its ResBlocks with (features, emb, …).
    """

    def __init__(self, rows: CallRows) -> None:
        self._rows = rows
        self._timesteps: Tensor | None = None
        self._context: Tensor | None = None
        self._embedding: Tensor | None = None
        self._steps: dict[torch.dtype, UNetStep] = {}

    def begin_unet(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the UNet."""
        self.begin_call(args, kwargs)

    def begin_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The UNet begins, on a call's rows or on those of one window, with these arguments."""
        self.clear()
        self._timesteps = _argument(args, kwargs, 1, "timesteps")
        self._context = _argument(args, kwargs, 2, "context")

    def take_embedding(self, res_block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of a ResBlock."""
        self._embedding = _argument(args, kwargs, 1, "emb")

    def step(self, dtype: torch.dtype) -> UNetStep:
        """The running call for modules of `dtype`; made once per call.

        Raises:
            InjectionError: the host calls its UNet in a way of its own, so that timesteps or embedding are not known.
        """
        if dtype not in self._steps:
            if not isinstance(self._timesteps, Tensor) or not isinstance(self._embedding, Tensor):
                raise InjectionError(
                    "This motion module needs the timestep, and this web UI's UNet was called without telling it. "
                    "Choose another motion module, and please report this with the web UI's name and version."
                )
            context = self._context
            self._steps[dtype] = UNetStep(
                self._per_row(self._timesteps).float(),
                self._per_row(self._embedding).to(dtype),
                None if context is None else self._per_row(context).to(dtype),
            )
        return self._steps[dtype]

    def clear(self) -> None:
        """Let go of the last call's tensors."""
        self._timesteps = self._context = self._embedding = None
        self._steps = {}

    def _per_row(self, tensor: Tensor) -> Tensor:
        """Entry after entry; one row for all of a call is what the UNet's own layers broadcast."""
        if tensor.shape[0] == 1:
            tensor = tensor.expand(self._rows.num_rows, *tensor.shape[1:])
        return self._rows.to_entries(tensor)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str) -> Any:
    return args[place] if len(args) > place else kwargs.get(name)
