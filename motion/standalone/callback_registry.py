"""The list of registered callbacks, and how they are called; part of `modules.script_callbacks`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from motion.standalone import errors, extensions, host_state, shared

CATEGORIES = (
    "app_started",
    "model_loaded",
    "ui_tabs",
    "ui_train_tabs",
    "ui_settings",
    "before_image_saved",
    "image_saved",
    "extra_noise",
    "cfg_denoiser",
    "cfg_denoised",
    "cfg_after_cfg",
    "before_component",
    "after_component",
    "image_grid",
    "infotext_pasted",
    "script_unloaded",
    "before_ui",
    "on_reload",
    "list_optimizers",
    "list_unets",
    "before_token_counter",
)
_LAST_REGISTERED_FIRST = frozenset({"script_unloaded", "before_ui"})

Callback = Callable[..., Any]
_OWN_FILES = frozenset({"callback_registry.py", "script_callbacks.py"})


@dataclass
class ScriptCallback:
    """A registered callback: the file that registered it, the function, and its unique name."""

    script: str
    callback: Any
    name: str = "unnamed"


def empty_callback_map() -> dict[str, list[ScriptCallback]]:
    """A list for each category, under the keys of A1111's `callback_map`."""
    return {f"callbacks_{category}": [] for category in CATEGORIES}


def _calling_file() -> str:
    folder = os.path.dirname(__file__)
    frames = (frame.filename for frame in inspect.stack(context=0))
    ours = {os.path.join(folder, name) for name in _OWN_FILES}
    return next((filename for filename in frames if filename not in ours), "unknown file")


def add_callback(
    callbacks: list[ScriptCallback],
    fun: Any,
    *,
    name: str | None = None,
    category: str = "unknown",
    filename: str | None = None,
) -> None:
    """Append `fun` under the name "extension/file/category[/name]", made unique by a number."""
    filename = _calling_file() if filename is None else filename
    extension = extensions.find_extension(filename)
    base = f"{extension.canonical_name if extension else 'base'}/{os.path.basename(filename)}/{category}"
    base += f"/{name}" if name is not None else ""
    taken = {entry.name for entry in callbacks}
    numbered = (base if number == 0 else f"{base}-{number}" for number in range(len(taken) + 1))
    callbacks.append(ScriptCallback(filename, fun, next(candidate for candidate in numbered if candidate not in taken)))


def sort_callbacks(
    category: str, unordered_callbacks: Sequence[ScriptCallback], *, enable_user_sort: bool = True
) -> list[ScriptCallback]:
    """Callbacks in order of registration; those that the setting prioritized_callbacks_<category> names come first."""
    first = getattr(shared.opts, f"prioritized_callbacks_{category}", []) if enable_user_sort else []
    rank = {name: place for place, name in enumerate(first)}
    return sorted(unordered_callbacks, key=lambda entry: rank.get(entry.name, len(rank)))


def ordered_callbacks(
    category: str, unordered_callbacks: Sequence[ScriptCallback] | None = None, *, enable_user_sort: bool = True
) -> list[ScriptCallback]:
    """The registered callbacks of a category, or the given ones, in calling order."""
    if unordered_callbacks is None:
        unordered_callbacks = host_state.current().callback_map.get(f"callbacks_{category}", [])
    return sort_callbacks(category, unordered_callbacks, enable_user_sort=enable_user_sort)


def enumerate_callbacks() -> Iterator[tuple[str, list[ScriptCallback]]]:
    """(category, its callbacks)."""
    for key, callbacks in host_state.current().callback_map.items():
        yield key.removeprefix("callbacks_"), callbacks


def clear_callbacks() -> None:
    """Forget all callbacks: scripts are about to be loaded again."""
    for callbacks in host_state.current().callback_map.values():
        callbacks.clear()


def _remove(unwanted: Callable[[ScriptCallback], bool]) -> None:
    for callbacks in host_state.current().callback_map.values():
        callbacks[:] = [entry for entry in callbacks if not unwanted(entry)]


def remove_current_script_callbacks() -> None:
    """Forget the callbacks that the calling file registered."""
    filename = _calling_file()
    _remove(lambda entry: entry.script == filename)


def remove_callbacks_for_function(callback_func: Any) -> None:
    """Forget a function wherever it was registered."""
    _remove(lambda entry: entry.callback == callback_func)


def call(category: str, *arguments: Any, **named: Any) -> list[Any]:
    """Call a category's callbacks and return what they returned; exceptions are logged."""
    results = []
    callbacks = ordered_callbacks(category)
    for entry in reversed(callbacks) if category in _LAST_REGISTERED_FIRST else callbacks:
        try:
            results.append(entry.callback(*arguments, **named))
        except Exception:
            errors.report(f"Error executing callback {category} for {entry.script}", exc_info=True)
    return results


def register(category: str, callback: Callback, name: str | None) -> None:
    """Append a callback to a category of the running host."""
    callbacks = host_state.current().callback_map[f"callbacks_{category}"]
    add_callback(callbacks, callback, name=name, category=category)
