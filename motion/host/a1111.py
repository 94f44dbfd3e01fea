"""Adapter for AUTOMATIC1111 1.10.1 and for the embedded host, which has the same model objects and hook order.

Learned from the running host:

* `sd_model.model.diffusion_model` is the UNet, `sd_model.alphas_cumprod` the schedule. Before each `p.sample` the host
  copies `alphas_cumprod_original` over it, so it is set inside our `p.sample` wrapper, after that copy.
* A sampler copies the schedule when it is made. txt2img and the hires pass make theirs inside `p.sample`; img2img has
  made its own in `p.init`, so it is made again.
* One step is one `on_cfg_denoiser` callback and one or more UNet calls. Its rows are all conds, interleaved per frame
  where AND gives a frame several, then all unconds. The calls take these rows in order: all at once, cond and uncond
  apart (other token counts, or batching off), or without the unconds (skipped early or by NGMS).
* img2img draws the picture's latents from the global random generator, anew for each frame and each request.
* Opening the accordion ticks its checkbox: in the page an open accordion is an enabled script.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from modules import devices, processing, sd_samplers, sd_samplers_common, shared

from motion.errors import InjectionError
from motion.host.adapter import set_lcm_steps
from motion.host.unet_windows import WindowProgress, control_hints_cut, free_bytes, latent_pixels
from motion.injection.beta_schedule import alphas_cumprod, has_zero_terminal_snr, with_zero_terminal_snr
from motion.protocols import BetaSchedule, FrameRows, Placement, UNetRoom, UNetWindow


class A1111Host:
    """`motion.host.adapter.HostAdapter` of one request.

    Args:
        p: the host's processing object.
        num_frames: frames of the clip.
    """

    name = "A1111"
    guides_by_prompt_weights = True
    frames_decoded_at_once = 1  # as the host does it, which gives its bytes whatever memory is free

    def __init__(self, p: Any, num_frames: int) -> None:
        self._p = p
        self._num_frames = num_frames
        self._step_rows: list[list[int]] = []
        self._next_row = 0
        self._has_and = False
        self._progress = WindowProgress()

    def unet(self) -> torch.nn.Module:
        """The UNet of the checkpoint that is loaded now."""
        unet: torch.nn.Module = self._p.sd_model.model.diffusion_model
        return unet

    def base(self) -> str:
        """Family of the checkpoint that is loaded now: "sd15", "sd2" or "sdxl", as `MotionFamily.base` names them."""
        sd_model = self._p.sd_model
        if getattr(sd_model, "is_sdxl", False):
            return "sdxl"
        return "sd2" if getattr(sd_model, "is_sd2", False) else "sd15"

    def placement(self) -> Placement:
        """The host's device and formats, as the UNet that is loaded now has them.

        With the option fp8_storage the UNet's convolutions and matrices are 8 bits wide. With --lowvram the UNet's
        blocks go to the device one after another; with --medvram the UNet goes as a whole, which needs nothing of us.
        """
        dtype = getattr(devices, "dtype_unet", devices.dtype)
        floats = (parameter for parameter in self.unet().parameters() if parameter.is_floating_point())
        narrow = next((parameter.dtype for parameter in floats if parameter.element_size() == 1), dtype)
        streamed = bool(getattr(self._p.sd_model, "lowvram", False) and shared.cmd_opts.lowvram)
        return Placement(devices.device, dtype, narrow, streamed)

    def reserved_memory(self, num_bytes: int) -> AbstractContextManager[None]:
        """Nothing to ask for: this host takes what memory there is when it needs it."""
        return nullcontext()

    @contextmanager
    def beta_schedule(self, schedule: BetaSchedule) -> Iterator[None]:
        """Make this request's sampler read `schedule`; it keeps zero terminal SNR where the checkpoint has it."""
        sd_model = self._p.sd_model
        before, original = sd_model.alphas_cumprod, getattr(sd_model, "alphas_cumprod_original", None)
        table = alphas_cumprod(schedule)
        if has_zero_terminal_snr(before):
            table = with_zero_terminal_snr(table)
        sd_model.alphas_cumprod = table.to(before, copy=True)
        try:
            if getattr(self._p, "init_latent", None) is not None:
                self._p.sampler = sd_samplers.create_sampler(self._p.sampler_name, sd_model)
            yield
        finally:
            now = getattr(sd_model, "alphas_cumprod_original", None)
            if now is not None and now is not original:
                # A hires checkpoint was loaded into this object. A file without a schedule leaves the one it finds,
                # ours, as the model's original, from which the host would copy it for ever.
                before = original if torch.equal(now.to(table), table) else now
                sd_model.alphas_cumprod_original = before
            sd_model.alphas_cumprod = before

    def alphas_cumprod(self) -> torch.Tensor:
        """ᾱ of every timestep, as this request is sampled now: [timesteps]."""
        table: torch.Tensor = self._p.sd_model.alphas_cumprod
        return table

    def begin_pass(self, lcm_original_steps: int | None) -> None:
        """Set what belongs to the sampler of this pass, which has just been made."""
        self._progress.begin_pass()
        if lcm_original_steps is not None:
            set_lcm_steps(self._p.sampler, self.alphas_cumprod(), lcm_original_steps)

    def frame_guidance(self, ratios: Sequence[float]) -> AbstractContextManager[None]:
        """Nothing to do: the weights of the prompts do it, picture by picture."""
        return nullcontext()

    def begin_step(self, num_cond_rows: int, num_rows: int) -> None:
        """Take the rows of a denoiser step, as `on_cfg_denoiser` sees them. What is wrong is said in the next call."""
        frames = self._num_frames
        entries = max(1, num_cond_rows // frames)
        self._has_and = num_cond_rows > frames and num_cond_rows % frames == 0
        conds = [[frame * entries + entry for frame in range(frames)] for entry in range(entries)]
        unconds = [list(range(row, row + frames)) for row in range(num_cond_rows, num_rows, frames)]
        self._step_rows = conds + unconds
        self._next_row = 0
        self._progress.begin_step(num_rows)

    def rows_of_call(self, num_rows: int) -> FrameRows:
        """The part of the step's rows that this call holds.

        Raises:
            InjectionError: the call holds only some frames of an entry.
        """
        begin, end = self._next_row, self._next_row + num_rows
        self._next_row = end
        inside = [[row - begin for row in entry if begin <= row < end] for entry in self._step_rows]
        entries = [entry for entry in inside if entry]
        if not entries:  # not a call of the CFG denoiser
            return FrameRows.contiguous(num_rows, self._num_frames)
        if sum(map(len, entries)) != num_rows or any(len(entry) != self._num_frames for entry in entries):
            if not self._has_and:
                return FrameRows.contiguous(num_rows, self._num_frames)
            raise InjectionError(
                "A prompt with AND was split so that a UNet call holds only some of the clip's frames. Turn on "
                "Settings → Optimizations → 'Batch cond/uncond' and give prompt and negative prompt the same length "
                "('Pad prompt/negative prompt'), or remove AND."
            )
        return FrameRows(tuple(map(tuple, entries)))

    def interrupted(self) -> bool:
        """True after Interrupt or Skip."""
        return bool(shared.state.interrupted or shared.state.skipped)

    def unet_room(self) -> UNetRoom:
        """Cond and uncond run together unless the option is off, or their lengths differ."""
        placement = self.placement()
        return UNetRoom(
            2 if shared.opts.batch_cond_uncond else 1,
            latent_pixels(self._p),
            free_bytes(placement.device, self.unet(), unet_comes=not placement.streamed),
        )

    @contextmanager
    def unet_window(self, window: UNetWindow) -> Iterator[None]:
        """Show the window, and give the ControlNet extension the pictures of its frames.

        Raises:
            InterruptedException: Interrupt or Skip.
        """
        with self._progress.shown(window), control_hints_cut(self._p, window):
            yield

    def decode(self, latents: torch.Tensor) -> Sequence[torch.Tensor]:
        """Several frames in one call of the decoder; one alone, or NaN, is for the host's own function.

        That one decodes one frame at a time, and tries again in a wider format where it finds NaN.
        """
        if len(latents) > 1:
            pictures = sd_samplers_common.decode_first_stage(self._p.sd_model, latents).to(devices.cpu)
            if not torch.isnan(pictures[:, 0, 0, 0]).any():
                return list(pictures)
        decoded: Sequence[torch.Tensor] = processing.decode_latent_batch(
            self._p.sd_model, latents, target_device=devices.cpu, check_for_nans=True
        )
        return decoded

    def decoder_room(self) -> int | None:
        """Known on the CPU, where too much ends the process; the small decoders need next to nothing."""
        if self.placement().device.type != "cpu" or getattr(shared.opts, "sd_vae_decode_method", "Full") != "Full":
            return None
        return free_bytes(self.placement().device, self.unet(), unet_comes=False)

    def sampling_failed(self) -> None:
        """Nothing to put back: this host sets the schedule anew before each `p.sample`."""
