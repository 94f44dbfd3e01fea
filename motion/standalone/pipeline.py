"""The host's one door for Python: `Pipeline.from_files(...)`, then `pipeline(settings)` as often as wanted."""

from __future__ import annotations

import dataclasses
import functools
import gc
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from motion.errors import CheckpointError, MotionError, SettingsError
from motion.models.precision import choose_precision
from motion.standalone import devices, host_state, jobs, namespace, scripts, sd_models, shared
from motion.standalone.checkpoint_info import CheckpointInfo
from motion.standalone.clip import Clip
from motion.standalone.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img
from motion.standalone.render_settings import RenderSettings
from motion.standalone.rng import ImageRNG

if TYPE_CHECKING:
    from motion.settings import MotionSettings

EXTENSION_FOLDER = Path(__file__).resolve().parents[2]
SCRIPT_TITLE = "Motion"
LATENT_CHANNELS = 4
PIXELS_PER_LATENT = 8

OnStep = Callable[[int, int, torch.Tensor], None]
"""(steps done, steps in all, latents `f c h w` as predicted now). What it raises ends the render."""


class Pipeline:
    """A checkpoint and a motion module, ready to render.

    It runs the extension's own entry script in the embedded host, as the page does. There is one host in a process:
    pipelines share it and run one after another; close the first one last. `with` closes.
    """

    def __init__(self, checkpoint: CheckpointInfo, motion_module: Path | None, resources: ExitStack) -> None:
        self._checkpoint = checkpoint
        self._motion_module = motion_module
        self._resources = resources

    @classmethod
    def from_files(
        cls,
        checkpoint: str | Path,
        motion_module: str | Path | None = None,
        svd: str | Path | None = None,
        *,
        precision: str = "auto",
        data_dir: str | Path | None = None,
    ) -> Pipeline:
        """Load a checkpoint; the motion module is read with the first clip.

        Args:
            checkpoint: Stable Diffusion checkpoint file; `<name>.yaml` beside it is read too.
            motion_module: motion module file; None where each render's settings name one.
            svd: not supported yet.
            precision: one of `motion.models.precision.PRECISIONS`.
            data_dir: folder of `models/Lora`, settings and the like; None uses the running host's, or else the
                defaults and no folder.

        Raises:
            CheckpointError: a file can't be used.
            SettingsError: `svd` is given, the precision is unknown, or it or the folder is not the running host's.
        """
        if svd is not None:
            raise SettingsError(f"`svd` is not supported in this version, got {svd}. Pass a checkpoint and None here.")
        with ExitStack() as stack:
            if host_state.is_running():
                _check_folder(data_dir)
            elif data_dir is None:
                data_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="motion-host-"))
            arguments = ["--data-dir", str(data_dir), "--no-prompt-history"]
            host = stack.enter_context(namespace.installed(arguments, [EXTENSION_FOLDER]))
            wanted = choose_precision(precision)
            if host.precision is not None and host.precision != wanted:
                raise SettingsError(
                    f"`precision` must be that of the running host ({host.precision.dtype}), got {precision}. "
                    "Close the other pipeline first."
                )
            devices.configure(wanted)
            if host.scripts_txt2img is None:
                scripts.load_scripts()
                scripts.build_runners()
            info = sd_models.register_checkpoint(CheckpointInfo(_existing(checkpoint)))
            sd_models.reload_model_weights(info=info)
            module = None if motion_module is None else _existing(motion_module)
            return cls(info, module, stack.pop_all())

    def __call__(
        self,
        settings: RenderSettings | Mapping[str, Any],
        *,
        generator: torch.Generator | None = None,
        latents: torch.Tensor | None = None,
        on_step: OnStep | None = None,
        output_dir: str | Path | None = None,
    ) -> Clip:
        """Render one clip.

        Args:
            settings: what to render, or its values by field name. The same settings with the same seed give the same
                bytes.
            generator: draws the initial noise in place of the seed, and of fields that say which frames share it.
            latents: initial noise, standard normal, `f c h/8 w/8`, in place of either.
            on_step: called after each step; what it raises ends the render, and the model is as before.
            output_dir: receives the clip's files; None keeps the clip in memory.

        Raises:
            MotionError: something in the request or in a file can't work.
            OutputError: the frames can't be written.
        """
        if isinstance(settings, Mapping):
            settings = RenderSettings.from_mapping(settings)
        with ExitStack() as stack:
            kept = output_dir is not None
            if settings.clip.resume and not kept:
                raise SettingsError("`resume` needs an `output_dir` that outlives the run, got none. Pass a folder.")
            folder = Path(output_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="motion-frames-")))
            motion = self._motion_settings(settings, keep_files=kept)
            p = self._processing(settings, motion, folder)
            _start_from(p, _initial_noise(settings, generator, latents))
            listener = None if on_step is None else functools.partial(_report_step, on_step)
            processed = jobs.run_job(p, "pipeline", listener)
            return _clip(processed, motion, keep_files=kept)

    def close(self) -> None:
        """Take the host down if this pipeline has started it; the checkpoint's memory is free then."""
        self._resources.close()
        gc.collect()  # requests and samplers refer to each other in circles, and to the checkpoint

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _motion_settings(self, settings: RenderSettings, *, keep_files: bool) -> MotionSettings:
        motion = settings.clip
        if self._motion_module is not None and not motion.motion_module:
            motion = dataclasses.replace(motion, motion_module=str(self._motion_module))
        # Frames of a clip that stays in memory pass through a temporary folder; no encoder has to run for it.
        return motion if keep_files else dataclasses.replace(motion, formats=("PNG",))

    def _processing(self, settings: RenderSettings, motion: MotionSettings, folder: Path) -> Any:
        common: dict[str, Any] = {
            "prompt": settings.prompt,
            "negative_prompt": settings.negative_prompt,
            "steps": settings.steps,
            "sampler_name": settings.sampler,
            "scheduler": settings.scheduler,
            "cfg_scale": settings.cfg_scale,
            "width": settings.width,
            "height": settings.height,
            "seed": settings.seed,
            "denoising_strength": settings.denoising_strength,
            "outpath_samples": str(folder),
            "outpath_grids": str(folder),
            "override_settings": {
                "sd_model_checkpoint": self._checkpoint.title,
                "CLIP_stop_at_last_layers": settings.clip_skip,
            },
        }
        p: Any
        if settings.init_image is not None:
            picture = _opened(settings.init_image)
            p = StableDiffusionProcessingImg2Img(**common, init_images=[picture], resize_mode=settings.resize_mode)
            runner = scripts.scripts_img2img
        else:
            p = StableDiffusionProcessingTxt2Img(
                **common,
                enable_hr=settings.hires_scale > 1,
                hr_scale=settings.hires_scale,
                hr_second_pass_steps=settings.hires_steps,
                hr_upscaler=settings.hires_upscaler,
            )
            runner = scripts.scripts_txt2img
        p.outpath_clips = str(folder)
        p.scripts = runner
        p.script_args = _script_arguments(runner, motion)
        return p


def _check_folder(data_dir: str | Path | None) -> None:
    """Refuse a data folder that is not the running host's."""
    running = Path(host_state.current().paths.data_path).resolve()
    if data_dir is not None and Path(data_dir).resolve() != running:
        raise SettingsError(
            f"`data_dir` must be that of the running host ({running}), got {data_dir}. Close the other pipeline first."
        )


def _existing(path: str | Path) -> Path:
    path = Path(path).absolute()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(path, f"the file {what}.", "Pass the path of a weight file.")
    return path


def _opened(picture: Any) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise SettingsError(
                f"`init_image` must be a uint8 array h w 3, got {picture.dtype} of shape {picture.shape}. Convert it."
            )
        return Image.fromarray(picture)
    try:
        with Image.open(picture) as file:
            rgb: Image.Image = file.convert("RGB")
            return rgb
    except (OSError, UnidentifiedImageError) as error:
        raise SettingsError(f"`init_image` must be a picture, got {picture}: {error}. Choose another file.") from error


def _script_arguments(runner: Any, motion: MotionSettings) -> tuple[Any, ...]:
    script = runner.script(SCRIPT_TITLE)
    if script is None or script.args_from is None:
        raise MotionError(
            f"The extension's script did not load from {EXTENSION_FOLDER}. The log says why.", status_code=500
        )
    arguments = scripts.default_arguments(runner)
    arguments[script.args_from] = {field.name: getattr(motion, field.name) for field in dataclasses.fields(motion)}
    return tuple(arguments)


def _initial_noise(
    settings: RenderSettings, generator: torch.Generator | None, latents: torch.Tensor | None
) -> torch.Tensor | None:
    frames = settings.clip.num_frames if settings.clip.enabled else 1
    if latents is not None or generator is not None:
        _check_seeds_unused(settings.clip)
    shape = (frames, LATENT_CHANNELS, settings.height // PIXELS_PER_LATENT, settings.width // PIXELS_PER_LATENT)
    if latents is not None:
        if tuple(latents.shape) != shape:
            raise SettingsError(f"`latents` must have the shape {shape}, got {tuple(latents.shape)}. Draw new ones.")
        return latents
    if generator is not None:
        return torch.randn(shape, generator=generator, device=generator.device)
    return None


def _check_seeds_unused(motion: MotionSettings) -> None:
    """Refuse fields that say which frames share noise, where the noise itself is given."""
    if motion.seed_behaviour != "per frame" or motion.frame_seeds:
        raise SettingsError(
            "`seed_behaviour` must be 'per frame' and `frame_seeds` empty where `generator` or `latents` gives the "
            f"noise, got '{motion.seed_behaviour}' and '{motion.frame_seeds}'. Leave them out, or pass a seed alone."
        )


def _start_from(p: Any, noise: torch.Tensor | None) -> None:
    """Make the first draw of `p`'s noise give `noise`; later draws, of ancestral samplers, stay those of the seeds."""
    if noise is None:
        return
    sample = p.sample

    def sample_from_noise(*args: Any, **kwargs: Any) -> Any:
        p.rng = _GivenNoise(p.rng, noise)
        return sample(*args, **kwargs)

    p.sample = sample_from_noise


class _GivenNoise(ImageRNG):
    def __init__(self, seeded: ImageRNG, noise: torch.Tensor) -> None:
        super().__init__(seeded.shape, seeded.seeds)
        self._noise = noise

    def first(self) -> torch.Tensor:
        super().first()  # moves the seeds' generators on to where an ancestral sampler expects them
        return self._noise.to(device=devices.device, dtype=torch.float32)


def _report_step(on_step: OnStep, done: int, total: int | None) -> None:
    state = shared.state
    on_step(done, total or state.sampling_steps, state.current_latent)


def _clip(processed: Any, motion: MotionSettings, *, keep_files: bool) -> Clip:
    first = processed.index_of_first_image
    frames = [np.asarray(image.convert("RGB")) for image in processed.images[first:]]
    if not frames:
        raise MotionError("The render was interrupted before it had a frame. Start it again.", status_code=500)
    return Clip(
        frames=np.stack(frames),
        fps=motion.fps,
        infotext=processed.infotexts[first],
        files=tuple(getattr(processed, "clip_files", ())) if keep_files else (),
        loop_count=motion.loop_count,
        notes=tuple(processed.comments.splitlines()),
    )
