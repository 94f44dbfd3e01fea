"""Gradio components that A1111 adds: `modules.ui_components`."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from types import TracebackType
from typing import Any

import gradio as gr


class _Variant(type(gr.Checkbox)):  # type: ignore[misc]  # Gradio 3's buttons have a wider one
    """Metaclass of components that look like another one and are made with other arguments.

    Gradio's own writes a .pyi file beside the source of every such class whenever it is imported, which this one does
    not. Gradio also reads from the constructor's signature what to tell the page, so that of the original is shown.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        made = ABCMeta.__new__(mcs, name, bases, attributes)
        if "__init__" in attributes:
            original: Any = next(base for base in bases if issubclass(base, gr.blocks.Block))
            attributes["__init__"].__signature__ = inspect.signature(original.__init__)
        return made


class FormComponent:
    """Marks a component that stands in a form."""

    def get_expected_parent(self) -> type:
        """Container that gradio puts it into."""
        from gradio.components import Form

        return Form  # type: ignore[no-any-return]


class ToolButton(FormComponent, gr.Button, metaclass=_Variant):  # type: ignore[misc]
    """A small button that shows one symbol."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("tooltip", None)  # a Gradio 3 name
        classes = kwargs.pop("elem_classes", [])
        super().__init__(*args, elem_classes=["tool", *classes], **kwargs)

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "button"


class FormRow(FormComponent, gr.Row, metaclass=_Variant):  # type: ignore[misc]
    """A row that stands in a form."""

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "row"


class ResizeHandleRow(gr.Row, metaclass=_Variant):  # type: ignore[misc]
    """A row of columns."""

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "row"


class FormColumn(FormComponent, gr.Column, metaclass=_Variant):  # type: ignore[misc]
    """A column that stands in a form."""

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "column"


class FormGroup(FormComponent, gr.Group, metaclass=_Variant):  # type: ignore[misc]
    """A group that stands in a form."""

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "group"


class FormHTML(FormComponent, gr.HTML, metaclass=_Variant):  # type: ignore[misc]
    """HTML that stands in a form."""

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "html"


class FormColorPicker(FormComponent, gr.ColorPicker, metaclass=_Variant):  # type: ignore[misc]
    """A colour picker that stands in a form."""

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "colorpicker"


class DropdownMulti(FormComponent, gr.Dropdown, metaclass=_Variant):  # type: ignore[misc]
    """A list from which several can be chosen."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(multiselect=True, **kwargs)

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "dropdown"


class DropdownEditable(FormComponent, gr.Dropdown, metaclass=_Variant):  # type: ignore[misc]
    """A list that also takes values that aren't in it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_custom_value=True, **kwargs)

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "dropdown"


class InputAccordion(gr.Checkbox, metaclass=_Variant):  # type: ignore[misc]
    """An accordion whose value says whether its content is in use.

    A1111's opens and closes with the value, by JavaScript of its page. Gradio 4 has no event for an accordion's state,
    so here a checkbox stands first inside, and ticking it opens the accordion.

    Attributes:
        accordion: the container; use the object itself in `with`.
    """

    def __init__(self, value: bool = False, **kwargs: Any) -> None:
        label, elem_id = kwargs.pop("label", "Accordion"), kwargs.pop("elem_id", None)
        visible = kwargs.pop("visible", True)
        kwargs.pop("render", None)  # Gradio 4 makes a component again, unrendered, to check an update of it
        self.accordion = gr.Accordion(label=label, open=value, elem_id=elem_id, visible=visible)
        checkbox_id = f"{elem_id}-checkbox" if elem_id else None
        super().__init__(value, label=label, elem_id=checkbox_id, render=False, **kwargs)

    def extra(self) -> gr.Row:
        """A place for further components in the accordion's head."""
        return gr.Row(elem_classes=["input-accordion-extra"])

    def __enter__(self) -> InputAccordion:
        self.accordion.__enter__()
        if not self.is_rendered:
            self.render()
            self.change(
                lambda opened: gr.update(open=opened),
                inputs=[self],
                outputs=[self.accordion],
                queue=False,
                show_progress="hidden",
            )
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.accordion.__exit__(exc_type, exc_val, exc_tb)

    def get_block_name(self) -> str:
        """Gradio's own component that draws it."""
        return "checkbox"
