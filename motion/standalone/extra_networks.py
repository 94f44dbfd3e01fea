"""`<kind:name:weight>` tags in prompts: `modules.extra_networks`."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from motion.standalone import errors, host_state

logger = logging.getLogger(__name__)

extra_network_registry: dict[str, ExtraNetwork]
extra_network_aliases: dict[str, ExtraNetwork]

_TAG = re.compile(r"<(\w+):([^>]+)>")


class ExtraNetworkParams:
    """Arguments of one tag.

    Attributes:
        items: all arguments as written: ["name", "0.8", "te=0.5"].
        positional: those without "=".
        named: those with "=".
    """

    def __init__(self, items: list[Any] | None = None) -> None:
        self.items = items or []
        self.positional: list[Any] = []
        self.named: dict[str, str] = {}
        for item in self.items:
            name, equals, value = item.partition("=") if isinstance(item, str) else (item, "", "")
            if equals:
                self.named[name] = value
            else:
                self.positional.append(item)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExtraNetworkParams) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]


ExtraNetworkData = dict[str, list[ExtraNetworkParams]]


class ExtraNetwork:
    """Handler of one kind of tag."""

    def __init__(self, name: str) -> None:
        self.name = name

    def activate(self, p: Any, params_list: list[ExtraNetworkParams]) -> None:
        """Bring exactly these networks into effect; an empty list turns all of this kind off.

        Called before each batch is encoded, and again before the next call or `deactivate`: each call replaces the
        effect of the one before.
        """
        raise NotImplementedError

    def deactivate(self, p: Any) -> None:
        """The job has ended."""
        raise NotImplementedError


def initialize() -> None:
    """Forget all handlers."""
    host_state.current().extra_network_registry.clear()
    host_state.current().extra_network_aliases.clear()


def register_extra_network(extra_network: ExtraNetwork) -> None:
    """Let `extra_network` handle the tags of its name."""
    host_state.current().extra_network_registry[extra_network.name] = extra_network


def register_extra_network_alias(extra_network: ExtraNetwork, alias: str) -> None:
    """Let `extra_network` also handle the tags of another name."""
    host_state.current().extra_network_aliases[alias] = extra_network


def lookup_extra_networks(extra_network_data: ExtraNetworkData) -> dict[ExtraNetwork, list[ExtraNetworkParams]]:
    """Handler -> its tags; tags without a handler are left out."""
    host = host_state.current()
    found: dict[ExtraNetwork, list[ExtraNetworkParams]] = {}
    for name, params in extra_network_data.items():
        handler = host.extra_network_registry.get(name) or host.extra_network_aliases.get(name)
        if handler is None:
            logger.info("Skipping unknown extra network: %s", name)
        else:
            found.setdefault(handler, []).extend(params)
    return found


def activate(p: Any, extra_network_data: ExtraNetworkData) -> None:
    """Activate what a prompt names, turn the rest off, and tell scripts. A failing handler is logged and skipped."""
    wanted = lookup_extra_networks(extra_network_data)
    for handler in _with_the_rest(wanted):
        try:
            handler.activate(p, wanted.get(handler, []))
        except Exception as error:
            errors.display(error, f"activating extra network {handler.name}")
    if p.scripts is not None:
        p.scripts.after_extra_networks_activate(
            p,
            batch_number=p.iteration,
            prompts=p.prompts,
            seeds=p.seeds,
            subseeds=p.subseeds,
            extra_network_data=extra_network_data,
        )


def deactivate(p: Any, extra_network_data: ExtraNetworkData) -> None:
    """Tell all handlers that the job has ended."""
    for handler in _with_the_rest(lookup_extra_networks(extra_network_data)):
        try:
            handler.deactivate(p)
        except Exception as error:
            errors.display(error, f"deactivating extra network {handler.name}")


def _with_the_rest(first: Iterable[ExtraNetwork]) -> list[ExtraNetwork]:
    return list(dict.fromkeys([*first, *host_state.current().extra_network_registry.values()]))


def parse_prompt(prompt: str) -> tuple[str, ExtraNetworkData]:
    """A prompt without its tags, and the tags by kind."""
    found: ExtraNetworkData = defaultdict(list)

    def take(match: re.Match[str]) -> str:
        found[match.group(1)].append(ExtraNetworkParams(items=match.group(2).split(":")))
        return ""

    return _TAG.sub(take, prompt), found


def parse_prompts(prompts: Iterable[str]) -> tuple[list[str], ExtraNetworkData | None]:
    """All prompts without their tags, and the tags of the first one: a batch has one set of networks."""
    parsed = [parse_prompt(prompt) for prompt in prompts]
    return [text for text, _ in parsed], parsed[0][1] if parsed else None


host_state.forward(
    __name__,
    {"extra_network_registry": "extra_network_registry", "extra_network_aliases": "extra_network_aliases"},
)
