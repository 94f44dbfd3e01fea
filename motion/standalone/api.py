"""`/sdapi/v1`: A1111's API, as far as this host goes."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from motion.errors import MotionError
from motion.standalone import jobs, samplers, scripts, sd_models, shared
from motion.standalone.api_errors import add_error_handlers
from motion.standalone.api_models import ScriptInfo
from motion.standalone.api_requests import (
    GenerationRequest,
    GenerationResponse,
    Img2ImgRequest,
    ProgressResponse,
    Txt2ImgRequest,
)
from motion.standalone.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img
from motion.standalone.samplers.schedulers import schedulers


def add_api(app: FastAPI) -> None:
    """Add the API's routes and its way of answering errors to `app`; the scripts' controls must be made by then."""
    add_error_handlers(app)
    router = APIRouter()
    router.add_api_route("/sdapi/v1/txt2img", txt2img, methods=["POST"], response_model=GenerationResponse)
    router.add_api_route("/sdapi/v1/img2img", img2img, methods=["POST"], response_model=GenerationResponse)
    router.add_api_route("/sdapi/v1/progress", progress, methods=["GET"], response_model=ProgressResponse)
    router.add_api_route("/sdapi/v1/interrupt", interrupt, methods=["POST"])
    router.add_api_route("/sdapi/v1/skip", skip, methods=["POST"])
    router.add_api_route("/sdapi/v1/options", get_options, methods=["GET"])
    router.add_api_route("/sdapi/v1/options", set_options, methods=["POST"])
    router.add_api_route("/sdapi/v1/sd-models", list_checkpoints, methods=["GET"])
    router.add_api_route("/sdapi/v1/refresh-checkpoints", refresh_checkpoints, methods=["POST"])
    router.add_api_route("/sdapi/v1/samplers", list_samplers, methods=["GET"])
    router.add_api_route("/sdapi/v1/schedulers", list_schedulers, methods=["GET"])
    router.add_api_route("/sdapi/v1/scripts", list_scripts, methods=["GET"])
    router.add_api_route("/sdapi/v1/script-info", script_info, methods=["GET"], response_model=list[ScriptInfo])
    app.include_router(router)


def txt2img(request: Txt2ImgRequest) -> GenerationResponse:
    """Images from text."""
    p = StableDiffusionProcessingTxt2Img(**request.processing_arguments())
    return _generate(p, request, scripts.scripts_txt2img, "txt2img")


def img2img(request: Img2ImgRequest) -> GenerationResponse:
    """Images from images.

    Raises:
        HTTPException: no picture (404), or one that can't be read (422).
    """
    if not request.init_images:
        raise HTTPException(status_code=404, detail="Init image not found")
    p = StableDiffusionProcessingImg2Img(
        **request.processing_arguments(),
        init_images=[decoded(text) for text in request.init_images],
        mask=decoded(request.mask) if request.mask else None,
    )
    response = _generate(p, request, scripts.scripts_img2img, "img2img")
    if not request.include_init_images:
        response.parameters.update(init_images=None, mask=None)
    return response


def progress(skip_current_image: bool = False) -> ProgressResponse:
    """How far the running job is."""
    done, seconds_left = jobs.job_progress()
    return ProgressResponse(
        progress=done, eta_relative=seconds_left, state=shared.state.dict(), textinfo=shared.state.textinfo
    )


def interrupt() -> dict[str, Any]:
    """End the running job; what is there is its answer."""
    shared.state.interrupt()
    return {}


def skip() -> None:
    """End the running batch."""
    shared.state.skip()


def get_options() -> dict[str, Any]:
    """All settings."""
    return dict(shared.opts.data)


def set_options(request: dict[str, Any]) -> None:
    """Change settings and keep them.

    Raises:
        MotionError: an unknown setting or checkpoint; nothing is changed then.
    """
    for name in request:
        if name not in shared.opts.data_labels:
            raise MotionError(f"Setting {name!r} is unknown. GET this address for the known ones.")
    checkpoint = request.get("sd_model_checkpoint")
    if checkpoint is not None and sd_models.get_closet_checkpoint_match(checkpoint) is None:
        raise MotionError(f"Checkpoint {checkpoint!r} is unknown. GET /sdapi/v1/sd-models for the known ones.")
    for name, value in request.items():
        shared.opts.set(name, value, is_api=True)
    shared.opts.save(shared.cmd_opts.ui_settings_file)


def list_checkpoints() -> list[dict[str, Any]]:
    """All checkpoints."""
    return [
        {
            "title": info.title,
            "model_name": info.model_name,
            "hash": info.shorthash,
            "sha256": info.sha256,
            "filename": info.filename,
            "config": None,
        }
        for info in sd_models.checkpoints_list.values()
    ]


def refresh_checkpoints() -> None:
    """Read the folders of checkpoints again."""
    sd_models.list_models()


def list_samplers() -> list[dict[str, Any]]:
    """All samplers."""
    return [
        {
            "name": entry.name,
            "aliases": list(entry.aliases),
            "options": {key: str(value) for key, value in entry.options.items()},
        }
        for entry in samplers.all_samplers
    ]


def list_schedulers() -> list[dict[str, Any]]:
    """All schedule types."""
    return [
        {
            "name": entry.name,
            "label": entry.label,
            "aliases": list(entry.aliases),
            "default_rho": entry.default_rho,
            "need_inner_model": entry.need_inner_model,
        }
        for entry in schedulers
    ]


def list_scripts() -> dict[str, list[str]]:
    """Names of the scripts of each tab."""
    tabs = (("txt2img", scripts.scripts_txt2img), ("img2img", scripts.scripts_img2img))
    return {tab: [script.name for script in runner.scripts if script.name] for tab, runner in tabs if runner}


def script_info() -> list[ScriptInfo]:
    """Arguments of all scripts."""
    runners = [runner for runner in (scripts.scripts_txt2img, scripts.scripts_img2img) if runner]
    return [script.api_info for runner in runners for script in runner.scripts if script.api_info is not None]


def _generate(p: Any, request: GenerationRequest, runner: Any, tab: str) -> GenerationResponse:
    p.is_api = True
    p.scripts = runner
    p.script_args = _script_arguments(request, runner)
    p.outpath_samples = shared.opts.outdir_samples or getattr(shared.opts, f"outdir_{tab}_samples")
    p.outpath_grids = shared.opts.outdir_grids or getattr(shared.opts, f"outdir_{tab}_grids")
    processed = jobs.run_job(p, f"scripts_{tab}")
    images = [encoded(image) for image in processed.images] if request.send_images else []
    return GenerationResponse(images=images, parameters=request.model_dump(), info=processed.js())


def _script_arguments(request: GenerationRequest, runner: Any) -> tuple[Any, ...]:
    """The arguments of all scripts: their defaults, and what the request sets."""
    arguments = scripts.default_arguments(runner)
    if request.script_name:
        titles = [title.lower() for title in runner.titles]
        if request.script_name.lower() not in titles:
            raise HTTPException(status_code=422, detail=f"Script '{request.script_name}' not found")
        arguments[0] = titles.index(request.script_name.lower()) + 1
        _fill(arguments, runner.selectable_scripts[arguments[0] - 1], request.script_args or [])
    for name, given in (request.alwayson_scripts or {}).items():
        script = runner.script(name)
        if script is None:
            raise HTTPException(status_code=422, detail=f"Script '{name}' not found")
        if not script.alwayson:
            raise HTTPException(
                status_code=422, detail="Cannot have a selectable script in the always on scripts params"
            )
        _fill(arguments, script, given.get("args", []) if isinstance(given, dict) else given)
    return tuple(arguments)


def _fill(arguments: list[Any], script: Any, values: Any) -> None:
    room = script.args_to - script.args_from
    if not isinstance(values, list) or len(values) > room:
        got = f"{len(values)} of them" if isinstance(values, list) else type(values).__name__
        raise HTTPException(
            status_code=422, detail=f"`args` of script '{script.name}' must be a list of at most {room}, got {got}"
        )
    arguments[script.args_from : script.args_from + len(values)] = values


def decoded(text: str) -> Image.Image:
    """Picture of base64 text.

    Raises:
        HTTPException: 422, the text is no picture.
    """
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text))
        ) as file:
            picture: Image.Image = file.copy()
            return picture
    except (binascii.Error, ValueError, OSError, UnidentifiedImageError) as error:
        raise HTTPException(status_code=422, detail="Invalid encoded image") from error


def encoded(image: Any) -> str:
    """PNG in base64, infotext inside; text stays as it is."""
    if isinstance(image, str):
        return image
    metadata = PngImagePlugin.PngInfo()
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str):
            metadata.add_text(key, value)
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=metadata)
    return base64.b64encode(file.getvalue()).decode("ascii")
