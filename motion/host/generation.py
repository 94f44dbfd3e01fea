"""One request's clip, from its checked settings to the files: what the script's hooks do for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from modules import processing, shared
from torch import Tensor

from motion.checkpoints.motion_lora_file import MotionLora
from motion.conditioning.motion_strength import MotionStrength
from motion.context.plan import WindowPlan
from motion.errors import InjectionError, MotionError, SettingsError
from motion.host.adapter import HostAdapter
from motion.host.clip_output import ClipOutput, selected_script
from motion.host.decoding import FrameDecoding
from motion.host.detect import adapter_for
from motion.host.frame_seeds import check_seeds, spread_seeds
from motion.host.freeinit import FreeInitSampling
from motion.host.module_files import LoadedModule, ModelFiles
from motion.host.prompt_tags import requests_in_field, take_tags_from_prompts
from motion.host.prompt_travel import PromptTravel, guidance_ratios, set_off_from_styles
from motion.host.resume import clip_record
from motion.host.sample_hook import set_generation
from motion.injection.call_record import CallRecord
from motion.injection.inject import matching_sites
from motion.injection.motion_lora import check_motion_lora
from motion.noise.freeinit import FreeInit
from motion.session import MotionSession
from motion.settings import MotionSettings, field_specs

logger = logging.getLogger(__name__)

_SCRIPTS_OF_ONE_PICTURE = ("SD upscale", "Outpainting mk2", "Poor man's outpainting")


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
        self._host: HostAdapter | None = None
        self._session: MotionSession | None = None
        self._free_init: FreeInitSampling | None = None
        self._output: ClipOutput | None = None
        self._travel = PromptTravel(settings.num_frames, settings.prompt_interpolation, settings.closed_loop)
        self._guidance_ratios: tuple[float, ...] | None = None
        self._lcm_original_steps: int | None = None
        self._weight_files: list[Path] = []
        self._record: CallRecord | None = None
        self._has_sampled = False
        self._request_changes = ExitStack()

    @classmethod
    def refused(cls, p: Any, error: Exception) -> ClipGeneration:
        """A generation that only raises `error` when sampling begins."""
        generation = cls(p, MotionSettings(), ModelFiles())
        generation._keep_error(error)
        return generation

    def guard(self, step: Callable[..., None], *args: Any) -> None:
        """Run one hook's work, unless one has failed; the first error is kept, and raised from `p.sample`.

        Every exception is caught, because the host would swallow it and make stills.
        """
        if self._error is not None:
            return
        try:
            step(*args)
        except Exception as error:
            self._keep_error(error)

    def _keep_error(self, error: Exception) -> None:
        self._error = error
        if not isinstance(error, MotionError):
            logger.error("Motion: unexpected error", exc_info=error)
        if self._has_sampled:  # too late to raise it: the frames are made, and the host goes on
            self._report(error)
        else:
            self._change_request(do_not_save_samples=True, do_not_save_grid=True)

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
        script = selected_script(p)
        if script in _SCRIPTS_OF_ONE_PICTURE:
            raise SettingsError(
                f"The script '{script}' puts one picture together from many, a clip has many pictures. "
                "Choose no script, or turn Motion off."
            )
        family, config = self._files.inspect(settings.motion_module, settings.module_family)
        WindowPlan.resolve(settings, family.trained_window(config.max_length), config.max_length)
        check_seeds(p, settings)
        MotionStrength.resolve(settings)
        self._output = ClipOutput(p, settings)
        if p.batch_size not in (1, settings.num_frames):
            p.comment(f"Motion: a batch holds one clip, so Batch size {p.batch_size} has no meaning; use Batch count.")
        self._change_request(batch_size=settings.num_frames, do_not_save_samples=True, do_not_save_grid=True)
        self._change_request(**set_off_from_styles(p))

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
        self._check_frames()
        schedule = self._travel.check(p)
        self._host = host = adapter_for(p, settings.num_frames)
        self._guidance_ratios = guidance_ratios(p, schedule)
        if self._guidance_ratios and host.guides_by_prompt_weights:
            self._travel.weigh_frames(self._guidance_ratios)
        loaded = self._load_module(host)
        loras = self._files.motion_lora_names()
        requests = (
            *requests_in_field(settings.motion_loras, loras.__contains__),
            *take_tags_from_prompts(p, loras.__contains__),
        )
        for request in requests:
            request.frame_weights(settings.num_frames)
        self._session = MotionSession(
            host,
            settings,
            loaded.model,
            loaded.family,
            loras=[(self._load_lora(request.name, loaded), request) for request in requests],
            adapter=self._files.load_adapter(settings.domain_adapter) if settings.domain_adapter else None,
            strength=MotionStrength.resolve(settings, schedule.motion),
        )
        if self._session.scope_reason:
            p.comment(f"Motion: the UNet runs window by window (window scope unet): {self._session.scope_reason}.")
        self._lcm_original_steps = loaded.family.lcm_original_steps
        free_init = FreeInit.of(settings)
        if free_init is not None:
            self._free_init = FreeInitSampling(p, free_init, host, self._session.begin_sampling)
        spread_seeds(p, settings, self._session.plan)
        self._describe(" ".join(request.tag for request in requests))
        if settings.resume:
            self._weight_files = self._files_of([request.name for request in requests])
            # Web UIs encode img2img's picture next, with noise of torch's global generator; it must be the same again.
            torch.manual_seed(int(p.all_seeds[0]))

    def _files_of(self, loras: list[str]) -> list[Path]:
        """The request's weight files that the infotext tells by their names only."""
        settings, find = self._settings, self._files.find
        adapters = [find("domain_adapter", settings.domain_adapter)] if settings.domain_adapter else []
        return [
            find("motion_module", settings.motion_module),
            *(find("motion_lora", name) for name in loras),
            *adapters,
        ]

    def _check_frames(self) -> None:
        """Refuse a batch that is not one clip's frames."""
        p, frames = self._p, self._settings.num_frames
        if len(p.all_prompts) != frames * p.n_iter:
            raise SettingsError(
                f"A clip of {frames} frames must have one prompt, got {len(p.all_prompts)} prompts for {p.n_iter} "
                "clip(s). Turn off the script that makes a picture of each prompt (such as Prompt matrix)."
            )
        pictures = len(getattr(p, "init_images", None) or [None])
        if pictures not in (1, frames):
            raise SettingsError(
                f"img2img must start from one picture or from one per frame ({frames}), got {pictures}. "
                "Pass one, or as many as the clip has frames."
            )

    def _describe(self, motion_loras: str) -> None:
        """Put the settings into the infotext; a cell of X/Y/Z plot shares its dict with the others."""
        p, module = self._p, self._settings.motion_module
        module = Path(module).name if Path(module).is_absolute() else module  # no folders of this machine
        scope = self._settings.window_scope if self._session is None else self._session.window_scope
        described = replace(self._settings, motion_module=module, motion_loras=motion_loras, window_scope=scope)
        ours = {spec.infotext for spec in field_specs().values()}
        others = {key: value for key, value in p.extra_generation_params.items() if key not in ours}
        p.extra_generation_params = others | described.to_infotext()

    def _load_module(self, host: HostAdapter) -> LoadedModule:
        settings = self._settings
        loaded = self._files.load(settings.motion_module, settings.module_family, host.placement())
        if loaded.family.base != host.base():
            raise SettingsError(
                f"`motion_module` must fit the checkpoint, which is {host.base()}, got "
                f"'{settings.motion_module}' ({loaded.family.title}) for {loaded.family.base}. Choose another."
            )
        matching_sites(host.unet(), loaded.model)
        return loaded

    def _load_lora(self, name: str, loaded: LoadedModule) -> MotionLora:
        lora = self._files.load_lora(name)
        check_motion_lora(loaded.model, loaded.family.base, lora)
        return lora

    def begin_step(self, num_cond_rows: int, x: Tensor, step: tuple[int, int] | None) -> None:
        """A denoiser step begins (`on_cfg_denoiser`) on the rows `x`, so many of them conds.

        Args:
            num_cond_rows: rows with the prompt.
            x: latents of all rows.
            step: number of the step, from 0, and of how many; None where the sampler doesn't say.
        """
        if self._host is not None:
            self._host.begin_step(num_cond_rows, len(x))
        if self._free_init is not None:
            self._free_init.begin_step(x)
        if self._session is not None:
            self._session.begin_step(step)

    def sample(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`p.sample` with the motion module in the model.

        Raises:
            MotionError: what the hooks found wrong, or what went wrong inside.
        """
        if self._session is not None and self._session.is_active:  # a neighbour's wrapper of an earlier run, once more
            return original(*args, **kwargs)
        try:
            samples = self._sample_once(original, *args, **kwargs)
        except BaseException:
            if self._host is not None:
                self._host.sampling_failed()
            raise
        self._has_sampled = True
        return samples

    def _sample_once(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._error is not None:
            raise self._error
        if self._session is None or self._output is None:
            raise InjectionError("The web UI skipped this extension's `process` hook. Please report this.")
        self._check_prompts()
        self._output.flush()
        self._discard_record()
        if self._settings.resume:
            infotext = self._infotext_of(0, always=True)
            self._record = clip_record(self._p, self._output.folder, infotext, self._weight_files)
        with ExitStack() as stack:
            if self._guidance_ratios is not None and self._host is not None:
                stack.enter_context(self._host.frame_guidance(self._guidance_ratios))
            stack.callback(setattr, shared.state, "textinfo", shared.state.textinfo)
            shared.state.textinfo = f"Motion: {self._session.describe_windows()}"
            stack.enter_context(self._session.applied(self._record))
            if self._free_init is not None:
                stack.enter_context(self._free_init.applied())
            samples = original(*args, **kwargs)
        return self._decoded(samples)

    def _decoded(self, samples: Any) -> Any:
        """The clip's pictures, now that the model is without the motion module again."""
        assert self._host is not None, "set with the session"
        assert self._output is not None, "checked before sampling"
        decoding = FrameDecoding(
            self._p, self._settings, self._host, self._output.begin_early_frames, self._infotext_of
        )
        return decoding.decode(samples)

    def _discard_record(self) -> None:
        """The clip that was sampled last is on disk: what was recorded of it has had its use. After a stop it stays."""
        record, self._record = self._record, None
        if record is None:
            return
        if shared.state.interrupted or shared.state.skipped:
            self._p.comment("Motion: stopped; the same request with the same seed, run again, goes on from there.")
        else:
            record.discard()

    def _infotext_of(self, index: int, always: bool = False) -> str:
        """Infotext of a frame of the batch at hand, where the user wants one in pictures."""
        p = self._p
        if not shared.opts.enable_pnginfo and not always:
            return ""
        infotext: str = processing.create_infotext(
            p, p.prompts, p.seeds, p.subseeds, index=index, all_negative_prompts=p.negative_prompts
        )
        return infotext

    def _check_prompts(self) -> None:
        """Refuse a clip whose frames would show different things."""
        for kind in ("prompts", "negative_prompts"):
            different = len(set(getattr(self._p, kind)))
            if different > 1:
                raise SettingsError(
                    f"All frames of a clip must have one prompt, got {different} different {kind.replace('_', ' ')}. "
                    "Turn off what makes another prompt for each picture (wildcards, Prompt matrix)."
                )

    def sample_hr_pass(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`p.sample_hr_pass`; the first pass may have run on another checkpoint."""
        if self._session is not None and self._session.is_active:
            self._session.rebind()
        return original(*args, **kwargs)

    def get_conds_with_caching(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """`p.get_conds_with_caching`: the conds of each frame of a travelling prompt.

        Raises:
            SettingsError: a malformed line.
        """
        if self._error is not None or self._session is None:
            return original(*args, **kwargs)
        return self._travel.conds(original, *args, **kwargs)

    def begin_sampling(self) -> None:
        """Sampling begins. Outside our `p.sample` wrapper somebody replaced it: stop, or stills would come out."""
        if self._session is None or not self._session.is_active:
            self._error = self._error or InjectionError(
                "Another extension replaced this request's sampling, so the motion module could not run. Turn it off."
            )
            shared.state.interrupted = True
            self._report(self._error)
        elif self._host is not None:
            self._host.begin_pass(self._lcm_original_steps)
            if self._free_init is not None:
                self._free_init.begin_pass()

    def take_frame(self, pp: Any) -> None:
        """The host shows one finished frame; other scripts may still change `pp.image`."""
        if self._output is not None:
            self._output.take(pp, self._infotext_of(self._p.batch_index))

    def deliver(self, processed: Any) -> None:
        """Write what is left and add the finished clips to the host's result, also after an error."""
        try:
            if self._output is not None and self._has_sampled:
                self._output.finish()
                self._discard_record()
        except Exception as error:
            self._keep_error(error)
        try:
            if self._output is not None:
                self._output.add_to(processed)
        except Exception as error:
            self._keep_error(error)
        self._request_changes.close()
        processed.comments = "".join(f"{comment}\n" for comment in self._p.comments)

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

    def _report(self, error: Exception) -> None:
        """Say what went wrong after sampling: on the page, and in what the API answers."""
        logger.error("Motion: %s", error)
        self._p.comment(f"Motion: {error}")
        self._p.extra_generation_params["Motion error"] = str(error)
