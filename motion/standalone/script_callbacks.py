"""Functions that extensions register, by the moment they are called at: `modules.script_callbacks`.

An exception in a callback is logged and the next callback is called, as in A1111.
"""

from __future__ import annotations

from typing import Any

from motion.standalone import host_state
from motion.standalone.callback_params import (
    AfterCFGCallbackParams,
    BeforeTokenCounterParams,
    CFGDenoisedParams,
    CFGDenoiserParams,
    ExtraNoiseParams,
    ImageGridLoopParams,
    ImageSaveParams,
    UiTrainTabParams,
)
from motion.standalone.callback_registry import (
    Callback,
    ScriptCallback,
    add_callback,
    call,
    clear_callbacks,
    enumerate_callbacks,
    ordered_callbacks,
    register,
    remove_callbacks_for_function,
    remove_current_script_callbacks,
    sort_callbacks,
)

__all__ = [
    "AfterCFGCallbackParams",
    "BeforeTokenCounterParams",
    "CFGDenoisedParams",
    "CFGDenoiserParams",
    "ExtraNoiseParams",
    "ImageGridLoopParams",
    "ImageSaveParams",
    "ScriptCallback",
    "UiTrainTabParams",
    "add_callback",
    "clear_callbacks",
    "enumerate_callbacks",
    "ordered_callbacks",
    "remove_callbacks_for_function",
    "remove_current_script_callbacks",
    "sort_callbacks",
]

callback_map: dict[str, list[ScriptCallback]]


def app_started_callback(demo: Any, app: Any) -> None:
    """The server runs."""
    call("app_started", demo, app)


def app_reload_callback() -> None:
    """The server is about to reload."""
    call("on_reload")


def model_loaded_callback(sd_model: Any) -> None:
    """A checkpoint was loaded."""
    call("model_loaded", sd_model)


def ui_tabs_callback() -> list[tuple[Any, str, str]]:
    """Tabs that extensions add: (gradio Blocks, title, element id)."""
    return [tab for tabs in call("ui_tabs") for tab in tabs or []]


def ui_train_tabs_callback(params: UiTrainTabParams) -> None:
    """The training tab is built; this host has none, the name is part of the API."""
    call("ui_train_tabs", params)


def ui_settings_callback() -> None:
    """The settings page is about to be built."""
    call("ui_settings")


def before_image_saved_callback(params: ImageSaveParams) -> None:
    """An image is about to be written; callbacks may change `params`."""
    call("before_image_saved", params)


def image_saved_callback(params: ImageSaveParams) -> None:
    """An image was written."""
    call("image_saved", params)


def extra_noise_callback(params: ExtraNoiseParams) -> None:
    """Extra noise is about to be added in img2img or the hires pass."""
    call("extra_noise", params)


def cfg_denoiser_callback(params: CFGDenoiserParams) -> None:
    """The UNet is about to be called; callbacks may change `params`."""
    call("cfg_denoiser", params)


def cfg_denoised_callback(params: CFGDenoisedParams) -> None:
    """The UNet was called; predictions are not yet combined."""
    call("cfg_denoised", params)


def cfg_after_cfg_callback(params: AfterCFGCallbackParams) -> None:
    """Predictions are combined."""
    call("cfg_after_cfg", params)


def before_component_callback(component: Any, **kwargs: Any) -> None:
    """A component of the page is about to be made."""
    call("before_component", component, **kwargs)


def after_component_callback(component: Any, **kwargs: Any) -> None:
    """A component of the page was made."""
    call("after_component", component, **kwargs)


def image_grid_callback(params: ImageGridLoopParams) -> None:
    """A grid is about to be made; callbacks may change `params`."""
    call("image_grid", params)


def infotext_pasted_callback(infotext: str, params: dict[str, Any]) -> None:
    """An infotext was parsed and is about to be applied; callbacks may change `params`."""
    call("infotext_pasted", infotext, params)


def script_unloaded_callback() -> None:
    """Scripts are about to be unloaded."""
    call("script_unloaded")


def before_ui_callback() -> None:
    """The page is about to be built."""
    call("before_ui")


def list_optimizers_callback() -> list[Any]:
    """What callbacks add to the list of attention optimizations; this host has none of its own."""
    found: list[Any] = []
    call("list_optimizers", found)
    return found


def list_unets_callback() -> list[Any]:
    """What callbacks add to the list of other UNets; this host has none of its own."""
    found: list[Any] = []
    call("list_unets", found)
    return found


def before_token_counter_callback(params: BeforeTokenCounterParams) -> None:
    """A prompt's tokens are about to be counted; callbacks may change `params`."""
    call("before_token_counter", params)


def on_app_started(callback: Callback, *, name: str | None = None) -> None:
    """`callback(demo, app)` once the server runs; gradio Blocks (or None) and FastAPI."""
    register("app_started", callback, name)


def on_before_reload(callback: Callback, *, name: str | None = None) -> None:
    """`callback()` before the server reloads."""
    register("on_reload", callback, name)


def on_model_loaded(callback: Callback, *, name: str | None = None) -> None:
    """`callback(sd_model)` after a checkpoint was loaded."""
    register("model_loaded", callback, name)


def on_ui_tabs(callback: Callback, *, name: str | None = None) -> None:
    """`callback()` returns further tabs as a list of (gradio Blocks, title, element id), or None."""
    register("ui_tabs", callback, name)


def on_ui_train_tabs(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` while the training tab is built."""
    register("ui_train_tabs", callback, name)


def on_ui_settings(callback: Callback, *, name: str | None = None) -> None:
    """`callback()` adds settings by `shared.opts.add_option`."""
    register("ui_settings", callback, name)


def on_before_image_saved(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with ImageSaveParams before an image is written."""
    register("before_image_saved", callback, name)


def on_image_saved(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with ImageSaveParams after an image was written."""
    register("image_saved", callback, name)


def on_extra_noise(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with ExtraNoiseParams before extra noise is added."""
    register("extra_noise", callback, name)


def on_cfg_denoiser(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with CFGDenoiserParams before each call of the UNet."""
    register("cfg_denoiser", callback, name)


def on_cfg_denoised(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with CFGDenoisedParams after each call of the UNet."""
    register("cfg_denoised", callback, name)


def on_cfg_after_cfg(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with AfterCFGCallbackParams after predictions are combined."""
    register("cfg_after_cfg", callback, name)


def on_before_component(callback: Callback, *, name: str | None = None) -> None:
    """`callback(component, **kwargs)` before a component of the page is made."""
    register("before_component", callback, name)


def on_after_component(callback: Callback, *, name: str | None = None) -> None:
    """`callback(component, **kwargs)` after a component of the page was made."""
    register("after_component", callback, name)


def on_image_grid(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with ImageGridLoopParams before a grid is made."""
    register("image_grid", callback, name)


def on_infotext_pasted(callback: Callback, *, name: str | None = None) -> None:
    """`callback(infotext, params)` after an infotext was parsed; `params` may be changed."""
    register("infotext_pasted", callback, name)


def on_script_unloaded(callback: Callback, *, name: str | None = None) -> None:
    """`callback()` before scripts are unloaded: undo what the script changed."""
    register("script_unloaded", callback, name)


def on_before_ui(callback: Callback, *, name: str | None = None) -> None:
    """`callback()` before the page is built."""
    register("before_ui", callback, name)


def on_list_optimizers(callback: Callback, *, name: str | None = None) -> None:
    """`callback(found)` adds attention optimizations to a list."""
    register("list_optimizers", callback, name)


def on_list_unets(callback: Callback, *, name: str | None = None) -> None:
    """`callback(found)` adds other UNets to a list."""
    register("list_unets", callback, name)


def on_before_token_counter(callback: Callback, *, name: str | None = None) -> None:
    """`callback(params)` with BeforeTokenCounterParams before tokens are counted."""
    register("before_token_counter", callback, name)


host_state.forward(__name__, {"callback_map": "callback_map"})
