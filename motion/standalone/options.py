"""Settings of the host: `modules.options`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from motion.standalone import errors

logger = logging.getLogger(__name__)

_OWN_ATTRIBUTES = frozenset({"data_labels", "data", "restricted_opts"})


class OptionInfo:
    """One setting: its default, and how the settings page shows it.

    Attributes:
        component: gradio class, or a function that makes a component.
        component_args: its keyword arguments, or a function that returns them.
        onchange: called after the value changed.
        section: (identifier, title) of the settings page's section.
        refresh: called by the refresh button beside the control.
        infotext: key of this setting in the infotext.
        restrict_api: the API may not change it.
        do_not_save: the entry is only text on the page.
    """

    def __init__(
        self,
        default: Any = None,
        label: str = "",
        component: Any = None,
        component_args: Any = None,
        onchange: Callable[[], Any] | None = None,
        section: tuple[str | None, str] | None = None,
        refresh: Callable[[], Any] | None = None,
        comment_before: str = "",
        comment_after: str = "",
        infotext: str | None = None,
        restrict_api: bool = False,
        category_id: str | None = None,
    ) -> None:
        self.default = default
        self.label = label
        self.component = component
        self.component_args = component_args
        self.onchange = onchange
        self.section = section
        self.category_id = category_id
        self.refresh = refresh
        self.do_not_save = False
        self.comment_before = comment_before
        self.comment_after = comment_after
        self.infotext = infotext
        self.restrict_api = restrict_api

    def link(self, label: str, url: str) -> OptionInfo:
        """Add a link before the label."""
        self.comment_before += f"[<a href='{url}' target='_blank'>{label}</a>]"
        return self

    def js(self, label: str, js_func: str) -> OptionInfo:
        """Add a link that calls a JavaScript function."""
        self.comment_before += f"[<a onclick='{js_func}(); return false'>{label}</a>]"
        return self

    def info(self, info: str) -> OptionInfo:
        """Add an explanation after the label."""
        self.comment_after += f"<span class='info'>({info})</span>"
        return self

    def html(self, html: str) -> OptionInfo:
        """Add HTML after the label."""
        self.comment_after += html
        return self

    def needs_restart(self) -> OptionInfo:
        """Say that the host must be restarted."""
        return self.html(" <span class='info'>(requires restart)</span>")

    def needs_reload_ui(self) -> OptionInfo:
        """Say that the page must be reloaded."""
        return self.html(" <span class='info'>(requires Reload UI)</span>")


class OptionHTML(OptionInfo):
    """A piece of text on the settings page."""

    def __init__(self, text: str) -> None:
        super().__init__(str(text).strip(), component="html")
        self.do_not_save = True


def options_section(section_identifier: Sequence[Any], options_dict: dict[str, OptionInfo]) -> dict[str, OptionInfo]:
    """Put every option of `options_dict` into the section (identifier, title[, category]) and return the dict."""
    for option in options_dict.values():
        option.section = (section_identifier[0], section_identifier[1])
        if len(section_identifier) > 2:
            option.category_id = section_identifier[2]
    return options_dict


@dataclass
class OptionsCategory:
    """A heading over several sections."""

    id: str
    label: str


class Options:
    """Settings by attribute: `opts.samples_save`. Unsaved ones answer with their default.

    Attributes:
        data_labels: option name -> OptionInfo.
        data: option name -> value.
        restricted_opts: names that only the settings page may change.
    """

    data_labels: dict[str, OptionInfo]
    data: dict[str, Any]
    restricted_opts: set[str]

    def __init__(self, data_labels: dict[str, OptionInfo], restricted_opts: Iterable[str] = ()) -> None:
        self.data_labels = data_labels
        self.data = {name: info.default for name, info in data_labels.items() if not info.do_not_save}
        self.restricted_opts = set(restricted_opts)

    def __setattr__(self, key: str, value: Any) -> None:
        if key in _OWN_ATTRIBUTES or (key not in self.data and key not in self.data_labels):
            super().__setattr__(key, value)
            return
        info = self.data_labels.get(key)
        if info is not None and info.do_not_save:
            return
        if info is not None and isinstance(info.component_args, dict) and not info.component_args.get("visible", True):
            raise RuntimeError(f"The setting {key!r} is restricted in this host and can't be set.")
        self.data[key] = value

    def __getattr__(self, item: str) -> Any:
        # Only reached for names that are no instance attributes.
        if item not in _OWN_ATTRIBUTES:
            if item in self.data:
                return self.data[item]
            if item in self.data_labels:
                return self.data_labels[item].default
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {item!r}")

    def set(self, key: str, value: Any, is_api: bool = False, run_callbacks: bool = True) -> bool:
        """Set an option and call its `onchange`; True if it changed. A failing `onchange` restores the old value."""
        old = self.data.get(key)
        option = self.data_labels[key]
        if old == value or option.do_not_save or (is_api and option.restrict_api):
            return False
        try:
            setattr(self, key, value)
        except RuntimeError:
            return False
        if run_callbacks and option.onchange is not None:
            try:
                option.onchange()
            except Exception as error:
                errors.display(error, f"changing setting {key} to {value}")
                setattr(self, key, old)
                return False
        return True

    def get_default(self, key: str) -> Any:
        """Default of an option; None for an unknown one."""
        info = self.data_labels.get(key)
        return None if info is None else info.default

    def add_option(self, key: str, info: OptionInfo) -> None:
        """Add a setting; a value that was loaded before stays."""
        self.data_labels[key] = info
        if key not in self.data and not info.do_not_save:
            self.data[key] = info.default

    def onchange(self, key: str, func: Callable[[], Any], call: bool = True) -> None:
        """Call `func` whenever `key` changes, and now if `call`."""
        self.data_labels[key].onchange = func
        if call:
            func()

    def cast_value(self, key: str, value: Any) -> Any:
        """`value` in the type of the option's default: "12" -> 12, "False" -> False."""
        default = self.data_labels[key].default
        if default is None:
            default = getattr(self, key, None)
        if value is None or default is None:
            return None
        if isinstance(default, bool) and value == "False":
            return False
        return type(default)(value)

    def same_type(self, x: Any, y: Any) -> bool:
        """Whether two values are of one kind; int and float are, None is of every kind."""
        kinds = [float if type(value) is int else type(value) for value in (x, y)]
        return x is None or y is None or kinds[0] is kinds[1]

    def load(self, filename: str) -> None:
        """Read settings from a JSON file; a missing one leaves the defaults, a damaged one is kept aside."""
        try:
            with open(filename, encoding="utf8") as file:
                loaded = json.load(file)
        except FileNotFoundError:
            return
        except ValueError:
            os.replace(filename, f"{filename}.damaged")
            logger.error(
                "%s is not valid JSON; it is now %s.damaged and settings are at their defaults", filename, filename
            )
            return
        for key, value in loaded.items():
            info = self.data_labels.get(key)
            if info is not None and not self.same_type(info.default, value):
                logger.warning("Setting %s: expected %s, got %r", key, type(info.default).__name__, value)
        self.data.update(loaded)

    def save(self, filename: str) -> None:
        """Write all settings to a JSON file."""
        with open(filename, "w", encoding="utf8") as file:
            json.dump(self.data, file, indent=4, ensure_ascii=False)

    def dumpjson(self) -> str:
        """All settings with their comments, for the page's JavaScript."""
        values = {key: self.data.get(key, info.default) for key, info in self.data_labels.items()}
        values["_comments_before"] = {k: info.comment_before for k, info in self.data_labels.items()}
        values["_comments_after"] = {k: info.comment_after for k, info in self.data_labels.items()}
        return json.dumps(values)

    def reorder(self) -> None:
        """Sort options so that those of one section stand together."""
        sections = list(dict.fromkeys(info.section for info in self.data_labels.values()))
        self.data_labels = dict(sorted(self.data_labels.items(), key=lambda item: sections.index(item[1].section)))
