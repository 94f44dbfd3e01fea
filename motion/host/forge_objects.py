"""What Forge and reForge have in common: a model whose networks sit in patchers, in `sd_model.forge_objects`.

Rows and whole entries, and that a clip leaves no trace in the model, were seen in the running hosts; what is said of
devices and memory is read in their code, since they ran without a graphics card:

* `forge_objects` is made anew several times in a request, from `forge_objects_original` and from the copy that the
  request's LoRAs made; all of these patchers share one UNet. So hooks on the UNet stay, whatever is cloned. A clone
  copies `model_options` deeply, so nothing of ours is in there.
* A call holds whole entries, one after another, unconds before conds: 2F rows, F at CFG 1, 3F with AND. Prompts of
  different lengths stay in one call. Where memory is short a call has fewer entries, never part of one.
* Before each `p.sample` they may give the schedule zero terminal SNR. They undo that when it returns, but not when it
  raises. Undoing computes log σ from σ in float32, which is not to the bit what it was.
* Motion modules are moved to the device by us, not handed to `add_extra_torch_module_during_sampling`: that one keeps
  them, with their memory, among the host's loaded models after the request; may take them off the device while another
  network loads; and can run a module that doesn't fit only if it is made of the host's own layers. What we move before
  `p.sample` the host sees as memory in use when it plans where the UNet goes.
* Memory for our layers' activations is not reserved: they run one after another, on feature maps for which the UNet's
  own attention has just used as much, and the host plans with 2F rows of that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from modules import devices, processing, sd_samplers, shared
from torch import Tensor

from motion.errors import InjectionError, SettingsError
from motion.host.adapter import set_lcm_steps
from motion.host.unet_windows import WindowProgress, latent_pixels
from motion.injection.beta_schedule import alphas_cumprod, has_zero_terminal_snr, with_zero_terminal_snr
from motion.protocols import BetaSchedule, FrameRows, Placement, UNetRoom, UNetWindow

_MISSING = object()


class ForgeObjectsHost(ABC):
    """`motion.host.adapter.HostAdapter` of one request, but for what Forge and reForge do differently.

    Args:
        p: the host's processing object, with the model that will be sampled.
        num_frames: frames of the clip.
    """

    name: str
    guides_by_prompt_weights = False  # of all pictures' weights the last one's is taken
    frames_decoded_at_once = 8  # which the host divides further, or tiles, as memory asks for it

    def __init__(self, p: Any, num_frames: int) -> None:
        self._p = p
        self._num_frames = num_frames
        self._in_schedule: Any = None
        self._reserved_bytes = 0
        self._guidance: tuple[float, ...] | None = None
        self._patched: tuple[Any, Any, Any] | None = None
        self._progress = WindowProgress()
        self._before_sampling = [(owner, name, getattr(owner, name)) for owner, name in self._overridden()]

    @abstractmethod
    def _schedule(self) -> Any:
        """The module in the model that turns σ into timesteps: `sigmas`, `log_sigmas` [timesteps], `set_sigmas`."""

    @abstractmethod
    def _memory_management(self) -> Any:
        """The host's module that says what is on which device."""

    @abstractmethod
    def _dtypes(self) -> tuple[torch.dtype, Any]:
        """In which type the UNet computes, and how the host stores it, by a dtype or a name of its own."""

    def _overridden(self) -> list[tuple[Any, str]]:
        """The attributes, by owner, that the host changes for zero terminal SNR."""
        return [(self._schedule(), "sigmas"), (self._schedule(), "log_sigmas")]

    def unet(self) -> torch.nn.Module:
        """The UNet of the checkpoint that is loaded now."""
        unet: torch.nn.Module = self._patcher().model.diffusion_model
        return unet

    def base(self) -> str:
        """Family of the checkpoint that is loaded now; networks other than Stable Diffusion's by their class."""
        flags = {"is_sdxl": "sdxl", "is_sd2": "sd2", "is_sd1": "sd15"}
        sd_model = self._p.sd_model
        return next((base for flag, base in flags.items() if getattr(sd_model, flag, False)), type(sd_model).__name__)

    def placement(self) -> Placement:
        """Device and formats of the UNet; packed storage (nf4, GGUF) unpacks to the type it computes in."""
        dtype, storage = self._dtypes()
        device = self._patcher().load_device
        storage_dtype = storage if isinstance(storage, torch.dtype) else dtype
        return Placement(device, dtype, storage_dtype, device.type != "cpu" and self._is_streamed(device))

    def _is_streamed(self, device: torch.device) -> bool:
        """True where the UNet can't stay on the device as a whole, as far as is known before it is loaded."""
        memory = self._memory_management()
        if memory.vram_state.name in ("LOW_VRAM", "NO_VRAM"):
            return True
        needed = memory.module_size(self.unet()) + memory.minimum_inference_memory()
        return bool(memory.get_total_memory(device) < needed)

    @contextmanager
    def reserved_memory(self, num_bytes: int) -> Iterator[None]:
        """Have `num_bytes` free on the device now, and where the UNet is streamed, kept free while it is sampled."""
        placement = self.placement()
        if placement.device.type != "cpu":
            self._memory_management().free_memory(num_bytes, placement.device)
        self._reserved_bytes = num_bytes if placement.streamed else 0
        try:
            yield
        finally:
            self._reserved_bytes = 0
            self._take_back_patcher()

    @contextmanager
    def frame_guidance(self, ratios: Sequence[float]) -> Iterator[None]:
        """Move each frame's guided prediction along the line from its unguided one.

        Raises:
            SettingsError: the request's CFG scale is 1, at which these hosts leave the negative prompt out.
        """
        if self._p.cfg_scale == 1:
            raise SettingsError(
                f"`cfg` in a prompt needs a CFG scale other than 1 in {self.name}, got 1. Choose another CFG scale."
            )
        self._guidance = tuple(ratios)
        try:
            yield
        finally:
            self._guidance = None
            self._take_back_patcher()

    def _take_back_patcher(self) -> None:
        if self._patched is not None:
            forge_objects, patcher, before = self._patched
            self._patched = None
            if forge_objects.unet is patcher:
                forge_objects.unet = before

    def alphas_cumprod(self) -> Tensor:
        """ᾱ of every timestep, as this request is sampled now: [timesteps]."""
        return _alphas(self._schedule().sigmas)

    def begin_pass(self, lcm_original_steps: int | None) -> None:
        """Set what belongs to the sampler and to the patcher of this pass, which have just been made."""
        self._progress.begin_pass()
        if lcm_original_steps is not None:
            set_lcm_steps(self._p.sampler, self.alphas_cumprod(), lcm_original_steps)
        forge_objects = self._p.sd_model.forge_objects
        is_wanted = self._reserved_bytes or self._guidance is not None
        if is_wanted and (self._patched is None or self._patched[1] is not forge_objects.unet):
            before = forge_objects.unet
            forge_objects.unet = patcher = before.clone()
            if self._reserved_bytes:
                patcher.add_extra_preserved_memory_during_sampling(self._reserved_bytes)
            if self._guidance is not None:
                patcher.set_model_sampler_post_cfg_function(_frame_guidance(self._guidance))
            self._patched = forge_objects, patcher, before

    def begin_step(self, num_cond_rows: int, num_rows: int) -> None:
        """For the progress bar; every call says by its number of rows how it is laid out.

        These hosts count the frames once, and run two rows of each in a step.
        """
        self._progress.begin_step(2 * self._num_frames)

    def rows_of_call(self, num_rows: int) -> FrameRows:
        """Whole entries, one after another.

        Raises:
            InjectionError: the rows are no whole number of clips, or the UNet runs on another schedule than the one
                that was set.
        """
        if self._in_schedule is not None and self._in_schedule is not self._schedule():
            raise InjectionError(
                "A clip must be sampled with its motion module's noise schedule, but another extension has put its own "
                "into the model. Turn that extension off (such as Advanced Model Sampling), or choose the noise "
                "schedule 'host'."
            )
        return FrameRows.contiguous(num_rows, self._num_frames)

    def interrupted(self) -> bool:
        """True after Interrupt or Skip."""
        return bool(shared.state.interrupted or shared.state.skipped)

    def unet_room(self) -> UNetRoom:
        """Cond and uncond together; everything but the UNet leaves the device where memory is short."""
        placement, memory = self.placement(), self._memory_management()
        free = memory.get_total_memory(placement.device) - memory.minimum_inference_memory()
        weights = 0 if placement.streamed else memory.module_size(self.unet())
        return UNetRoom(2, latent_pixels(self._p), int(free - weights))

    def unet_window(self, window: UNetWindow) -> AbstractContextManager[None]:
        """Show the window. What ControlNet adds comes to the UNet as arguments, and is cut with them.

        Raises:
            InterruptedException: Interrupt or Skip.
        """
        return self._progress.shown(window)

    @contextmanager
    def beta_schedule(self, schedule: BetaSchedule) -> Iterator[None]:
        """Make this request's sampler and its UNet read `schedule`, with zero terminal SNR where the host has set it.

        A sampler may copy the schedule when it is made. txt2img and the hires pass make theirs inside `p.sample`;
        img2img has made its own in `p.init`, so it is made again.
        """
        sd_model, holder = self._p.sd_model, self._schedule()
        before = {name: getattr(holder, name) for name in ("sigmas", "log_sigmas")}
        table = alphas_cumprod(schedule)
        if has_zero_terminal_snr(_alphas(holder.sigmas)):
            table = with_zero_terminal_snr(table)
        with _attribute_kept(sd_model, "alphas_cumprod"):
            try:
                holder.set_sigmas(((1 - table) / table).sqrt().to(holder.sigmas))
                if getattr(sd_model, "alphas_cumprod", None) is not None:
                    sd_model.alphas_cumprod = table.to(sd_model.alphas_cumprod)
                self._in_schedule = holder
                if getattr(self._p, "init_latent", None) is not None:
                    self._p.sampler = sd_samplers.create_sampler(self._p.sampler_name, sd_model)
                yield
            finally:
                self._in_schedule = None
                for name, tensor in before.items():
                    _put_back(holder, name, tensor)

    def decode(self, latents: Tensor) -> Sequence[Tensor]:
        """The host's own function."""
        decoded: Sequence[Tensor] = processing.decode_latent_batch(
            self._p.sd_model, latents, target_device=devices.cpu, check_for_nans=True
        )
        return decoded

    def decoder_room(self) -> int | None:
        """The host sees to it."""
        return None

    def sampling_failed(self) -> None:
        """Undo zero terminal SNR, which the host would leave in the model."""
        for owner, name, tensor in self._before_sampling:
            _put_back(owner, name, tensor)

    def _patcher(self) -> Any:
        return self._p.sd_model.forge_objects.unet


def _alphas(sigmas: Tensor) -> Tensor:
    """ᾱ of σ: 1 / (σ² + 1)."""
    return 1.0 / (sigmas**2 + 1.0)


def _frame_guidance(ratios: tuple[float, ...]) -> Callable[[dict[str, Any]], Tensor]:
    """What a patcher calls after guidance. A plain closure, since patchers are copied deeply."""

    def scaled(step: dict[str, Any]) -> Tensor:
        guided: Tensor = step["denoised"]
        unguided = step["uncond_denoised"]
        if unguided is None or not unguided.any():  # a step without the negative prompt
            return guided
        factors = torch.tensor(ratios, dtype=guided.dtype, device=guided.device).view(-1, 1, 1, 1)
        return unguided + (guided - unguided) * factors  # type: ignore[no-any-return]

    return scaled


def _put_back(owner: Any, name: str, before: Tensor) -> None:
    """The very tensor from before, on the device to which the host has moved the model since."""
    setattr(owner, name, before.to(getattr(owner, name).device))


@contextmanager
def _attribute_kept(owner: Any, name: str) -> Iterator[None]:
    """At the end `owner` has the value that it has now, or no such attribute where it has none."""
    before = getattr(owner, name, _MISSING)
    try:
        yield
    finally:
        if before is not _MISSING:
            setattr(owner, name, before)
        elif hasattr(owner, name):
            delattr(owner, name)
