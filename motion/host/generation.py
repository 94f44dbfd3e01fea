"""One request's clip, from its checked settings to the files: what the script's hooks do for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from modules import processing, shared

from motion.errors import InjectionError, MotionError, SettingsError
from motion.host.a1111 import A1111Host
from motion.host.clip_output import ClipOutput
from motion.host.module_files import LoadedModule, ModelFiles
from motion.host.prompt_tags import requests_in_field, take_tags_from_prompts
from motion.host.sample_hook import set_generation
from motion.injection.inject import matching_sites
from motion.session import MotionSession
from motion.settings import SEED_BEHAVIOURS, MotionSettings

logger = logging.getLogger(__name__)


class ClipGeneration:
    """Makes `p.n_iter` clips of `settings.num_frames` frames out of one request.

    Args:
        p: the host's processing object.
        settings: the checked request.
        files: weight files, and the module that is kept loaded.
    """

    def __init__(self, p: Any, settings: MotionSettings, files: ModelFiles) -> None:
        self._p = p
        self._settings = settings
        self._files = files
        self._error: Exception | None = None
        self._host = A1111Host(p, settings.num_frames)
        self._session: MotionSession | None = None
        self._output: ClipOutput | None = None
        self._lcm_original_steps: int | None = None
        self._request_changes = ExitStack()

    @classmethod
    def refused(cls, p: Any, error: Exception) -> ClipGeneration:
        """A generation that only raises `error` when sampling begins."""
        generation = cls(p, MotionSettings(), ModelFiles())
        generation._error = error
        return generation

    def guard(self, step: Callable[..., None], *args: Any) -> None:
        """Run one hook's work; the first error is kept, and raised from `p.sample`.

        Every exception is caught, because the host would swallow it and make stills.
        """
        if self._error is not None:
            return
        try:
            step(*args)
        except Exception as error:
            self._error = error
            if not isinstance(error, MotionError):
                logger.exception("Motion: unexpected error")
            if self._host_has_sampled():
                self._report(error)

    def prepare(self) -> None:
        """Check files and folders, and make the host's batch hold the frames of one clip.

        Raises:
            MotionError: something in the request can't work.
        """
        p, settings = self._p, self._settings
        if getattr(p, "firstpass_image", None) is not None:
            raise SettingsError(
                "The gallery's upscale button works on one picture, a clip has many. Turn Motion off, or enable Hires. "
                "fix and generate the clip again."
            )
        _, config = self._files.inspect(settings.motion_module, settings.module_family)
        if settings.num_frames > config.max_length:
            raise SettingsError(
                f"`num_frames` must be at most {config.max_length} with this motion module, got "
                f"{settings.num_frames}. Lower the number of frames."
            )
        self._output = ClipOutput(p, settings)
        if p.batch_size not in (1, settings.num_frames):
            p.comment(f"Motion: a batch holds one clip, so Batch size {p.batch_size} has no meaning; use Batch count.")
        self._change_request(batch_size=settings.num_frames, do_not_save_samples=True, do_not_save_grid=True)

    def _change_request(self, **attributes: Any) -> None:
        """Set attributes of the request until it ends; hosts run some requests (loopback) several times."""
        for name, value in attributes.items():
            self._request_changes.callback(setattr, self._p, name, getattr(self._p, name))
            setattr(self._p, name, value)

    def check_model(self) -> None:
        """Read all weights, check that the checkpoint fits, spread the seeds and describe the clip in the infotext.

        Raises:
            MotionError: the motion module is of another family or width, a LoRA or an adapter does not fit, or the
                request asks for a refiner.
        """
        p, settings = self._p, self._settings
        if getattr(p, "refiner_checkpoint", None) not in (None, "", "None", "none"):
            raise SettingsError(
                f"A refiner changes the checkpoint in mid-clip, which is not supported, got '{p.refiner_checkpoint}'. "
                "Turn the refiner off."
            )
        loaded = self._load_module()
        requests = (
            *requests_in_field(settings.motion_loras, self._files.is_motion_lora),
            *take_tags_from_prompts(p, self._files.is_motion_lora),
        )
        for request in requests:
            request.frame_weights(settings.num_frames)
        self._session = MotionSession(
            self._host,
            settings,
            loaded.model,
            loaded.family,
            loras=[(self._files.load_lora(request.name), request) for request in requests],
            adapter=self._files.load_adapter(settings.domain_adapter) if settings.domain_adapter else None,
        )
        self._lcm_original_steps = loaded.family.lcm_original_steps
        if settings.seed_behaviour == SEED_BEHAVIOURS[1]:
            frames = settings.num_frames
            p.all_seeds = [p.all_seeds[0] + index // frames for index in range(len(p.all_seeds))]
            p.all_subseeds = [p.all_subseeds[0] + index // frames for index in range(len(p.all_subseeds))]
        described = replace(settings, motion_loras=" ".join(request.tag for request in requests))
        p.extra_generation_params.update(described.to_infotext())

    def _load_module(self) -> LoadedModule:
        settings = self._settings
        _, dtype = self._host.device_and_dtype()
        loaded = self._files.load(settings.motion_module, settings.module_family, dtype)
        if loaded.family.base != self._host.base():
            raise SettingsError(
                f"`motion_module` must fit the checkpoint, which is {self._host.base()}, got "
                f"'{settings.motion_module}' ({loaded.family.title}) for {loaded.family.base}. Choose another."
            )
        matching_sites(self._host.unet(), loaded.model)
        return loaded

    def begin_step(self, num_cond_rows: int, num_rows: int) -> None:
        """A denoiser step begins (`on_cfg_denoiser`)."""
        self._host.begin_step(num_cond_rows, num_rows)

    def sample(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`p.sample` with the motion module in the model.

        Raises:
            MotionError: what the hooks found wrong, or what went wrong inside.
        """
        if self._error is not None:
            raise self._error
        if self._session is None or self._output is None:
            raise InjectionError("The web UI skipped this extension's `process` hook. Please report this.")
        self._output.flush()
        with self._session.applied():
            return original(*args, **kwargs)

    def sample_hr_pass(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`p.sample_hr_pass`; the first pass may have run on another checkpoint."""
        if self._session is not None and self._session.is_active:
            self._session.rebind()
        return original(*args, **kwargs)

    def begin_sampling(self) -> None:
        """Sampling begins. Outside our `p.sample` wrapper somebody replaced it: stop, or stills would come out."""
        if self._session is None or not self._session.is_active:
            self._error = self._error or InjectionError(
                "Another extension replaced this request's sampling, so the motion module could not run. Turn it off."
            )
            shared.state.interrupted = True
            self._report(self._error)
        elif self._lcm_original_steps is not None:
            self._host.use_lcm_steps(self._lcm_original_steps)

    def take_frame(self, pp: Any) -> None:
        """The host shows one finished frame; other scripts may still change `pp.image`."""
        if self._output is not None:
            p = self._p
            infotext = processing.create_infotext(
                p, p.prompts, p.seeds, p.subseeds, index=p.batch_index, all_negative_prompts=p.negative_prompts
            )
            self._output.take(pp, infotext)

    def deliver(self, processed: Any) -> None:
        """Write what is left and add the clips to the host's result."""
        if self._output is not None:
            self._output.flush()
            self._output.add_to(processed)
        self._request_changes.close()

    def close(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`p.close`, which hosts call after success and failure alike: the last frame taken reaches the disk."""
        try:
            if self._output is not None:
                self._output.close()
        except MotionError as error:
            self._report(error)
        finally:
            self._request_changes.close()
            set_generation(self._p, None)
        return original(*args, **kwargs)

    def _host_has_sampled(self) -> bool:
        return self._output is not None and self._output.num_taken > 0

    def _report(self, error: Exception) -> None:
        logger.error("Motion: %s", error)
        self._p.comment(f"Motion: {error}")
