"""One generation: owns every change that is made to a model, for exactly as long as the sampler runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from motion.checkpoints.domain_adapter_file import DomainAdapter
from motion.checkpoints.motion_file import MotionFamily
from motion.checkpoints.motion_lora_file import MotionLora
from motion.conditioning.lora_tags import MotionLoraRequest
from motion.conditioning.motion_strength import MotionStrength
from motion.context.plan import WindowPlan
from motion.context.window_scope import WindowScope, choose_window_scope
from motion.errors import InjectionError
from motion.injection import Injection, find_sites, injected
from motion.injection.beta_schedule import chosen_schedule
from motion.injection.call_record import CallRecord
from motion.injection.domain_adapter import domain_adapter_applied
from motion.injection.motion_lora import motion_loras_hooked, motion_loras_merged
from motion.injection.residency import resident, resident_bytes, streamed
from motion.models.cast_layers import has_narrow_weights
from motion.models.motion_module import MotionModel
from motion.models.site_module import takes_windows
from motion.protocols import FrameWindows, ModelHost, WindowRun
from motion.settings import MotionSettings

logger = logging.getLogger(__name__)


class MotionSession:
    """Binds a motion module to the model that a host is about to sample.

    Nothing is changed outside `applied()`. Inside it the sampler reads the module's noise schedule and the UNet runs
    the motion modules; leaving it, by return, error or interrupt, puts everything back in reverse order.

    Args:
        host: the adapter of the request that is sampled.
        settings: the request.
        motion_model: weights on the CPU; the device gets copies while sampling.
        family: what the module's file is.
        loras: motion LoRAs with what the request says of each.
        adapter: domain adapter for the UNet's spatial attention.
        strength: of the motion; None is what the settings alone say.

    Raises:
        SettingsError: windows that don't go together, or are longer than the module can take; a malformed strength.
    """

    def __init__(
        self,
        host: ModelHost,
        settings: MotionSettings,
        motion_model: MotionModel,
        family: MotionFamily,
        *,
        loras: Sequence[tuple[MotionLora, MotionLoraRequest]] = (),
        adapter: DomainAdapter | None = None,
        strength: MotionStrength | None = None,
    ) -> None:
        self._host = host
        self._settings = settings
        self._motion_model = motion_model
        self._family = family
        self._loras = loras
        self._adapter = adapter
        self._strength = strength or MotionStrength.resolve(settings)
        max_length = motion_model.config.max_length
        self._plan = WindowPlan.resolve(settings, family.trained_window(max_length), max_length)
        self._scope = self._resolve_scope()
        self._steps_begun = 0
        self._step: tuple[int, int] | None = None
        self._stack: ExitStack | None = None
        self._injection: Injection | None = None
        self._record: CallRecord | None = None

    @property
    def is_active(self) -> bool:
        """True while the changes are in place."""
        return self._stack is not None

    @property
    def plan(self) -> WindowPlan:
        """The windows in which the clip runs."""
        return self._plan

    def begin_sampling(self) -> None:
        """The sampler begins: its steps, and with them the windows, count from the first one."""
        self._steps_begun = 0
        self._step = None

    @property
    def window_scope(self) -> str:
        """What the request's scope came to: "attention" or "unet"; as it was asked for where the clip is one window."""
        return self._scope.name

    @property
    def scope_reason(self) -> str:
        """Why the slower scope was chosen for a request that left it open; else empty."""
        return self._scope.reason

    def describe_windows(self) -> str:
        """Number and shape of the windows, and what runs in them."""
        if self._plan.windows(0) is None:
            return str(self._plan)
        return f"{self._plan} (scope {self.window_scope})"

    def _resolve_scope(self) -> WindowScope:
        asked, model = self._settings.window_scope, self._motion_model
        if asked != "auto" or self._plan.windows(0) is None:
            return WindowScope(asked)
        num_frames, unet, placement = self._settings.num_frames, self._host.unet(), self._host.placement()
        room = self._host.unet_room()
        if room.free_bytes is not None:
            room = replace(room, free_bytes=room.free_bytes - resident_bytes(model, placement))
        return choose_window_scope(
            room,
            num_frames,
            find_sites(unet)[0].channels,
            placement.dtype.itemsize,
            attention_can=all(takes_windows(m) or m.max_length >= num_frames for m in model.site_modules().values()),
        )

    def _frames_of_call(self, num_frames: int) -> Sequence[int]:
        return range(num_frames) if self._injection is None else self._injection.frames_of_call(num_frames)

    def begin_step(self, step: tuple[int, int] | None = None) -> None:
        """A step of the sampler begins, of one or more UNet calls, which all run the same windows.

        Args:
            step: its number, from 0, and how many this pass has; None where the host doesn't know.
        """
        self._steps_begun += 1
        self._step = step

    def _moves_in_call(self) -> bool:
        if self._strength.is_in_every_step:
            return True
        if self._step is None:
            raise InjectionError(
                "`motion_start` and `motion_end` need to know which of how many steps runs, and this sampler doesn't "
                "say. Set them to 0 and 1, or choose another sampler."
            )
        self._strength.check_steps(self._step[1])
        return self._strength.is_in_step(*self._step)

    def _windows_of_call(self) -> FrameWindows | None:
        return self._plan.windows(max(0, self._steps_begun - 1))

    @contextmanager
    def applied(self, record: CallRecord | None = None) -> Iterator[None]:
        """Change the model that is loaded now; at the end, check that the UNet really ran with the module.

        Args:
            record: what an earlier run of the same request has recorded, and where this one records.

        Raises:
            InjectionError: the module doesn't fit the model, or no UNet call was seen although sampling ended.
        """
        if self.is_active:
            raise InjectionError("This request is already being sampled. Start the clip again.")
        self._record = record
        try:
            self._bind()
            yield
            self._check_ran()
        finally:
            self._release()
            self._record = None

    def rebind(self) -> None:
        """Leave the model of the first pass and bind to the one loaded now (hires pass). Call inside `applied()`."""
        self._check_ran()
        self._release()
        self._bind()

    def _bind(self) -> None:
        self.begin_sampling()
        with ExitStack() as stack:
            if not self._strength.is_zero:  # at 0 a clip is the host's own stills, to the last bit
                self._enter(stack)
            self._stack = stack.pop_all()
        logger.info(
            "%d frames in %s with %s at %s on %s",
            self._settings.num_frames,
            self.describe_windows(),
            self._family.title,
            self._strength,
            self._host.name,
        )

    def _enter(self, stack: ExitStack) -> None:
        settings, unet = self._settings, self._host.unet()
        placement = self._host.placement()
        schedule = chosen_schedule(settings.beta_schedule, self._family.beta_schedule)
        if schedule is not None:
            stack.enter_context(self._host.beta_schedule(schedule))
        self._enter_loras(stack)  # before the weights are copied to the device, which then holds them once
        stack.enter_context(self._host.reserved_memory(resident_bytes(self._motion_model, placement)))
        stack.enter_context((streamed if placement.streamed else resident)(self._motion_model, placement))
        if self._adapter is not None:
            stack.enter_context(domain_adapter_applied(unet, self._adapter, settings.domain_adapter_strength))
        self._injection = stack.enter_context(
            injected(
                unet,
                self._motion_model,
                settings.num_frames,
                scale=self._strength.scales,
                moves_in_call=self._moves_in_call,
                rows_of_call=self._host.rows_of_call,
                windows=WindowRun(self._windows_of_call, self.window_scope, self._host.unet_window),
                dtype=placement.dtype,
            )
        )
        if self._record is not None:
            stack.enter_context(self._record.applied(unet, self._injection.take_as_run))

    def _enter_loras(self, stack: ExitStack) -> None:
        whole = [(lora, request.weight) for lora, request in self._loras if request.first_frame is None]
        ranged = [
            (lora, request.frame_weights(self._settings.num_frames))
            for lora, request in self._loras
            if request.first_frame is not None
        ]
        if has_narrow_weights(self._motion_model):  # which would round most of a merged LoRA away
            stack.enter_context(motion_loras_hooked(self._motion_model, [*whole, *ranged], self._frames_of_call))
            return
        stack.enter_context(motion_loras_merged(self._motion_model, whole))
        stack.enter_context(motion_loras_hooked(self._motion_model, ranged, self._frames_of_call))

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
