"""A host with a very small model in it, and jobs for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.precision import choose_precision
from motion.models.unet import UNetConfig, UNetModel
from motion.standalone import devices, namespace, processing, script_base, script_runner, sd_models, shared
from motion.standalone.checkpoint_info import CheckpointInfo
from motion.standalone.sd_model import SdModel
from motion.standalone.text.conditioner import TextConditioner
from tests.weights_recipe import fill_module

UNET = UNetConfig(
    model_channels=32, channel_mult=(1, 2), num_res_blocks=1, transformer_depth=(1, 1), num_heads=2, context_dim=16
)
AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
TEXT_ENCODER = ClipTextEncoderConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32)


def make_model() -> SdModel:
    """All parts of a checkpoint, seeded, fp32."""
    text = TextConditioner(ClipTextEncoder(TEXT_ENCODER), ClipTokenizer())
    model = SdModel(UNetModel(UNET), AutoencoderKL(AUTOENCODER), text)
    for part in (model.model.diffusion_model, model.first_stage_model, text.clip):
        fill_module(part)
    return model.eval().requires_grad_(False)


@contextmanager
def running_host(folder: Path, *names: str) -> Iterator[SdModel]:
    """A host under `folder` with the model loaded under the first of `names`; the others are further checkpoints."""
    checkpoints = folder / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    for name in names or ("tiny",):
        (checkpoints / f"{name}.safetensors").write_bytes(name.encode())
    with namespace.installed(["--data-dir", str(folder)]):
        devices.configure(choose_precision("fp32", device="cpu"))
        shared.opts.sd_model_checkpoint = f"{(names or ('tiny',))[0]}.safetensors"
        model = make_model()
        pretend_loaded(model, sd_models.select_checkpoint())
        yield model


def pretend_loaded(model: SdModel, info: CheckpointInfo) -> None:
    """Make `model` the loaded content of a checkpoint file."""
    model.sd_checkpoint_info, model.sd_model_checkpoint = info, info.filename
    model.sd_model_hash = info.calculate_shorthash()
    model.cond_stage_model_empty_prompt = model.get_learned_conditioning([""])
    sd_models.model_data.set_sd_model(model)


def runner_of(*scripts: script_base.Script) -> script_runner.ScriptRunner:
    """A runner of always-on scripts without a page; script i owns argument i + 1."""
    runner = script_runner.ScriptRunner()
    for place, script in enumerate(scripts, start=1):
        script.alwayson, script.filename = True, f"script_{place}.py"
        script.args_from, script.args_to = place, place + 1
        runner.scripts.append(script)
        runner.alwayson_scripts.append(script)
    return runner


def txt2img(runner: script_runner.ScriptRunner | None = None, **fields) -> processing.StableDiffusionProcessingTxt2Img:
    """A job of 2 steps at 32 pixels."""
    return _job(processing.StableDiffusionProcessingTxt2Img, runner, fields)


def img2img(runner: script_runner.ScriptRunner | None = None, **fields) -> processing.StableDiffusionProcessingImg2Img:
    """A job of 2 steps at 32 pixels, from `init_images`."""
    return _job(processing.StableDiffusionProcessingImg2Img, runner, fields)


def _job(kind, runner, fields):
    small = {"steps": 2, "width": 32, "height": 32, "seed": 7, "sampler_name": "Euler", "prompt": "a cat"}
    p = kind(do_not_save_samples=True, do_not_save_grid=True, **{**small, **fields})
    if runner is not None:
        p.scripts = runner
        p.script_args = [0, *(f"argument {place}" for place in range(len(runner.scripts)))]
    return p


def run(p) -> processing.Processed:
    """Run a job as the page does."""
    shared.state.begin("test")
    try:
        return processing.process_images(p)
    finally:
        shared.state.end()
        p.close()
