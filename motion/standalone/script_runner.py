"""Calls the hooks of one tab's scripts; part of `modules.scripts`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from motion.standalone import callback_registry, errors, host_state
from motion.standalone.script_base import (
    MaskBlendArgs,
    OnComponent,
    PostprocessBatchListArgs,
    PostprocessImageArgs,
    PostProcessMaskOverlayArgs,
    PostSampleArgs,
    Script,
)
from motion.standalone.script_controls import ScriptControls


@contextmanager
def _reported(what: str, script: Script) -> Iterator[None]:
    """Log an exception of a script and go on."""
    try:
        yield
    except Exception:
        errors.report(f"Error running {what}: {script.filename}", exc_info=True)


class ScriptRunner(ScriptControls):
    """The scripts of one tab, their controls, and the calls of their hooks, each with the script's own arguments."""

    def build(self, is_img2img: bool) -> list[Any]:
        """All steps of making this tab's scripts and controls, inside a gradio Blocks; returns `inputs`."""
        host_state.current().scripts_current = self
        self.initialize_scripts(is_img2img)
        self.prepare_ui()
        return self.setup_ui()

    def list_scripts_for_method(self, method_name: str) -> list[Script]:
        """Scripts that may take part in a hook."""
        return self.scripts if method_name in ("before_component", "after_component") else self.alwayson_scripts

    def ordered_callbacks(self, method_name: str, *, enable_user_sort: bool = True) -> list[Any]:
        """Scripts that define a hook, as ScriptCallback, in calling order."""
        category = f"script_{method_name}"
        callbacks: list[callback_registry.ScriptCallback] = []
        for script in self.list_scripts_for_method(method_name):
            if getattr(type(script), method_name, None) is not getattr(Script, method_name, None):
                name, filename = type(script).__name__, str(script.filename)
                callback_registry.add_callback(callbacks, script, category=category, name=name, filename=filename)
        return callback_registry.sort_callbacks(category, callbacks, enable_user_sort=enable_user_sort)

    create_ordered_callbacks_list = ordered_callbacks

    def ordered_scripts(self, method_name: str) -> list[Script]:
        """Scripts that define a hook, in calling order."""
        return [entry.callback for entry in self.ordered_callbacks(method_name)]

    def _call(self, hook: str, p: Any, *leading: Any, **named: Any) -> None:
        for script in self.ordered_scripts(hook):
            with _reported(hook, script):
                own = p.script_args[script.args_from : script.args_to]
                getattr(script, hook)(p, *leading, *own, **named)

    def run(self, p: Any, *args: Any) -> Any:
        """Let the script chosen in the list make the images; None if none is chosen."""
        if not args or not args[0]:
            return None
        script = self.selectable_scripts[args[0] - 1]
        processed = script.run(p, *args[script.args_from : script.args_to])
        host_state.current().total_tqdm.clear()
        return processed

    def setup_scrips(self, p: Any, *, is_ui: bool = True) -> None:
        """Hook `setup`; the spelling is the API's."""
        for script in self.ordered_scripts("setup"):
            if is_ui or not script.setup_for_ui_only:
                with _reported("setup", script):
                    script.setup(p, *p.script_args[script.args_from : script.args_to])

    def before_process(self, p: Any) -> None:
        """Hook of this name."""
        self._call("before_process", p)

    def process(self, p: Any) -> None:
        """Hook of this name."""
        self._call("process", p)

    def process_before_every_sampling(self, p: Any, **kwargs: Any) -> None:
        """Hook of this name."""
        self._call("process_before_every_sampling", p, **kwargs)

    def before_process_batch(self, p: Any, **kwargs: Any) -> None:
        """Hook of this name."""
        self._call("before_process_batch", p, **kwargs)

    def after_extra_networks_activate(self, p: Any, **kwargs: Any) -> None:
        """Hook of this name."""
        self._call("after_extra_networks_activate", p, **kwargs)

    def process_batch(self, p: Any, **kwargs: Any) -> None:
        """Hook of this name."""
        self._call("process_batch", p, **kwargs)

    def postprocess(self, p: Any, processed: Any) -> None:
        """Hook of this name."""
        self._call("postprocess", p, processed)

    def postprocess_batch(self, p: Any, images: Any, **kwargs: Any) -> None:
        """Hook of this name."""
        self._call("postprocess_batch", p, images=images, **kwargs)

    def postprocess_batch_list(self, p: Any, pp: PostprocessBatchListArgs, **kwargs: Any) -> None:
        """Hook of this name."""
        self._call("postprocess_batch_list", p, pp, **kwargs)

    def post_sample(self, p: Any, ps: PostSampleArgs) -> None:
        """Hook of this name."""
        self._call("post_sample", p, ps)

    def on_mask_blend(self, p: Any, mba: MaskBlendArgs) -> None:
        """Hook of this name."""
        self._call("on_mask_blend", p, mba)

    def postprocess_image(self, p: Any, pp: PostprocessImageArgs) -> None:
        """Hook of this name."""
        self._call("postprocess_image", p, pp)

    def postprocess_maskoverlay(self, p: Any, ppmo: PostProcessMaskOverlayArgs) -> None:
        """Hook of this name."""
        self._call("postprocess_maskoverlay", p, ppmo)

    def postprocess_image_after_composite(self, p: Any, pp: PostprocessImageArgs) -> None:
        """Hook of this name."""
        self._call("postprocess_image_after_composite", p, pp)

    def before_hr(self, p: Any) -> None:
        """Hook of this name."""
        self._call("before_hr", p)

    def before_component(self, component: Any, **kwargs: Any) -> None:
        """A component of the page is about to be made."""
        self._component(
            "before_component", self.on_before_component_elem_id.get(kwargs.get("elem_id", "")), component, kwargs
        )

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """A component of the page was made."""
        self._component("after_component", self.on_after_component_elem_id.get(component.elem_id), component, kwargs)

    def announce(self, component: Any) -> None:
        """Tell all who asked, callbacks and this tab's scripts, that a component of the page was made."""
        named = {"elem_id": component.elem_id, "label": getattr(component, "label", None)}
        callback_registry.call("after_component", component, **named)
        self.after_component(component, **named)

    def _component(self, hook: str, asked: list[Any] | None, component: Any, kwargs: dict[str, Any]) -> None:
        for callback, script in asked or []:
            with _reported(f"on_{hook}", script):
                callback(OnComponent(component=component))
        for script in self.ordered_scripts(hook):
            with _reported(hook, script):
                getattr(script, hook)(component, **kwargs)
