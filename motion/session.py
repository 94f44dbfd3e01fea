"""One generation: owns every change that is made to a model, for exactly as long as the sampler runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from motion.checkpoints.motion_file import MotionFamily
from motion.errors import InjectionError
from motion.injection import Injection, injected
from motion.models.motion_module import MotionModel
from motion.protocols import ModelHost
from motion.settings import MotionSettings

logger = logging.getLogger(__name__)


class MotionSession:
    """Binds a motion module to the model that a host is about to sample.

    Nothing is changed outside `applied()`. Inside it the sampler reads the module's noise schedule and the UNet runs
    the motion modules; leaving it, by return, error or interrupt, puts everything back in reverse order.

    Args:
        host: the adapter of the request that is sampled.
        settings: the request.
        motion_model: weights, on any device.
        family: what the module's file is.
    """

    def __init__(
        self, host: ModelHost, settings: MotionSettings, motion_model: MotionModel, family: MotionFamily
    ) -> None:
        self._host = host
        self._settings = settings
        self._motion_model = motion_model
        self._family = family
        self._stack: ExitStack | None = None
        self._injection: Injection | None = None

    @property
    def is_active(self) -> bool:
        """True while the changes are in place."""
        return self._stack is not None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Change the model that is loaded now; at the end, check that the UNet really ran with the module.

        Raises:
            InjectionError: the module doesn't fit the model, or no UNet call was seen although sampling ended.
        """
        if self.is_active:
            raise InjectionError("This request is already being sampled. Start the clip again.")
        try:
            self._bind()
            yield
            self._check_ran()
        finally:
            self._release()

    def rebind(self) -> None:
        """Leave the model of the first pass and bind to the one loaded now (hires pass). Call inside `applied()`."""
        self._check_ran()
        self._release()
        self._bind()

    def _bind(self) -> None:
        with ExitStack() as stack:
            if self._settings.motion_scale != 0:  # at 0 a clip is the host's own stills, to the last bit
                device, dtype = self._host.device_and_dtype()
                stack.callback(self._motion_model.to, "cpu")
                self._motion_model.to(device=device, dtype=dtype)
                stack.enter_context(self._host.beta_schedule(self._family.beta_schedule))
                self._injection = stack.enter_context(
                    injected(
                        self._host.unet(),
                        self._motion_model,
                        self._settings.num_frames,
                        scale=self._settings.motion_scale,
                        rows_of_call=self._host.rows_of_call,
                    )
                )
            self._stack = stack.pop_all()
        logger.info(
            "%d frames with %s at scale %g on %s",
            self._settings.num_frames,
            self._family.title,
            self._settings.motion_scale,
            self._host.name,
        )

    def _release(self) -> None:
        stack, self._stack, self._injection = self._stack, None, None
        if stack is not None:
            stack.close()

    def _check_ran(self) -> None:
        if self._injection is not None and self._injection.num_calls == 0 and not self._host.interrupted():
            raise InjectionError(
                "Sampling must call the checkpoint's UNet at least once, it never did, so frames would be unrelated. "
                "Raise the steps or the denoising strength (DDIM leaves out its last step), or turn off extensions "
                "that run a UNet of their own (TensorRT, OpenVINO)."
            )
