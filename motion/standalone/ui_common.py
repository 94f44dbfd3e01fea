"""Small parts of pages: `modules.ui_common`."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import gradio as gr

from motion.standalone.ui_components import ToolButton

refresh_symbol = "\U0001f504"


def plaintext_to_html(text: str, classname: str | None = None) -> str:
    """`text` as an HTML paragraph that keeps its lines."""
    lines = "<br>\n".join(html.escape(line) for line in text.split("\n"))
    return f"<p class='{classname}'>{lines}</p>" if classname else f"<p>{lines}</p>"


def create_refresh_button(
    refresh_component: Any,
    refresh_method: Callable[[], Any],
    refreshed_args: Callable[[], dict[str, Any]] | dict[str, Any],
    elem_id: str,
) -> ToolButton:
    """A button that calls `refresh_method` and then updates components.

    Args:
        refresh_component: a gradio component, or a list of them.
        refresh_method: reads the files again.
        refreshed_args: the components' new properties, such as {"choices": […]}, or a function that returns them.
        elem_id: HTML id of the button.
    """
    components = refresh_component if isinstance(refresh_component, list) else [refresh_component]

    def refresh() -> Any:
        refresh_method()
        fresh = (refreshed_args() if callable(refreshed_args) else refreshed_args) or {}
        for component in components:
            for name, value in fresh.items():
                setattr(component, name, value)
        updates = [gr.update(**fresh) for _ in components]
        return updates if len(updates) > 1 else updates[0]

    button = ToolButton(value=refresh_symbol, elem_id=elem_id)
    button.click(fn=refresh, inputs=[], outputs=components)
    return button
