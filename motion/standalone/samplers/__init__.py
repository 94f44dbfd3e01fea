"""`modules.sd_samplers`: the list of samplers, and how names lead to them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from motion.errors import SettingsError
from motion.standalone import shared
from motion.standalone.samplers.common import Sampler, SamplerData, sample_to_image
from motion.standalone.samplers.kdiffusion import samplers_data_k_diffusion, samplers_data_lcm
from motion.standalone.samplers.schedulers import Scheduler, schedulers
from motion.standalone.samplers.timesteps import samplers_data_timesteps

if TYPE_CHECKING:
    from motion.standalone.sd_model import SdModel

__all__ = [
    "SamplerData",
    "all_samplers",
    "all_samplers_map",
    "create_sampler",
    "find_sampler_config",
    "fix_p_invalid_sampler_and_scheduler",
    "get_hr_sampler_and_scheduler",
    "get_hr_sampler_from_infotext",
    "get_hr_scheduler_from_infotext",
    "get_sampler_and_scheduler",
    "get_sampler_from_infotext",
    "get_scheduler_from_infotext",
    "sample_to_image",
    "samplers",
    "samplers_for_img2img",
    "samplers_map",
    "visible_sampler_names",
    "visible_samplers",
]

SAME_SAMPLER = "Use same sampler"
SAME_SCHEDULER = "Use same scheduler"

all_samplers: tuple[SamplerData, ...] = (*samplers_data_k_diffusion, *samplers_data_timesteps, *samplers_data_lcm)
samplers = samplers_for_img2img = all_samplers
all_samplers_map: Mapping[str, SamplerData] = MappingProxyType({entry.name: entry for entry in all_samplers})
samplers_map: Mapping[str, str] = MappingProxyType(
    {name.lower(): entry.name for entry in all_samplers for name in (entry.name, *entry.aliases)}
)
"""Name or alias in lower case -> name."""


def find_sampler_config(name: str | None) -> SamplerData | None:
    """Entry of a sampler's exact name; the first entry for None, None for an unknown name."""
    return all_samplers[0] if name is None else all_samplers_map.get(name)


def create_sampler(name: str | None, model: SdModel) -> Sampler:
    """A new sampler for `model`, by name, alias or a name joined with its scheduler ("DPM++ 2M Karras").

    Raises:
        SettingsError: unknown name.
    """
    config = find_sampler_config(name) or all_samplers_map[get_sampler_and_scheduler(name, None)[0]]
    sampler = config.constructor(model)
    sampler.config = config
    return sampler


def visible_samplers() -> list[SamplerData]:
    """Entries that the user has not hidden."""
    return [entry for entry in samplers if entry.name not in shared.opts.hide_samplers]


def visible_sampler_names() -> list[str]:
    """Names that the user has not hidden."""
    return [entry.name for entry in visible_samplers()]


def get_sampler_and_scheduler(
    sampler_name: str | None, scheduler_name: str | None, *, convert_automatic: bool = True
) -> tuple[str, str]:
    """(sampler, scheduler label) of names as requests and infotexts hold them.

    Args:
        sampler_name: name, alias, or either joined with a scheduler; None for the first sampler.
        scheduler_name: name or label; None for the joined one, or Automatic.
        convert_automatic: say "Automatic" for the scheduler that it stands for.

    Raises:
        SettingsError: unknown sampler or scheduler. The web UI falls back to its first ones.
    """
    name = sampler_name or samplers[0].name
    scheduler = _scheduler(scheduler_name)
    for entry in schedulers:
        for suffix in (entry.label, entry.name, *entry.aliases):
            if name.lower() not in samplers_map and name.endswith(f" {suffix}"):
                name, scheduler = name[: -len(suffix) - 1], entry
    if name.lower() not in samplers_map:
        known = ", ".join(all_samplers_map)
        raise SettingsError(f"Sampler {sampler_name!r} is unknown; this host has {known}. Choose one of these.")
    sampler = all_samplers_map[samplers_map[name.lower()]]
    if convert_automatic and sampler.options.get("scheduler") == scheduler.name:
        scheduler = schedulers[0]
    return sampler.name, scheduler.label


def _scheduler(name: str | None) -> Scheduler:
    for entry in schedulers:
        if not name or name in (entry.name, entry.label, *entry.aliases):
            return entry
    known = ", ".join(entry.label for entry in schedulers)
    raise SettingsError(f"Scheduler {name!r} is unknown; this host has {known}. Choose one of these.")


def get_sampler_from_infotext(d: Mapping[str, Any]) -> str:
    """Sampler that an infotext names."""
    return get_sampler_and_scheduler(d.get("Sampler"), d.get("Schedule type"))[0]


def get_scheduler_from_infotext(d: Mapping[str, Any]) -> str:
    """Scheduler that an infotext names."""
    return get_sampler_and_scheduler(d.get("Sampler"), d.get("Schedule type"))[1]


def get_hr_sampler_and_scheduler(d: Mapping[str, Any]) -> tuple[str, str]:
    """(sampler, scheduler) of an infotext's hires pass; "Use same …" where they are those of the first pass."""
    sampler, scheduler = d.get("Sampler"), d.get("Schedule type")
    hires_sampler, hires_scheduler = d.get("Hires sampler", SAME_SAMPLER), d.get("Hires schedule type", SAME_SCHEDULER)
    found_sampler, found_scheduler = get_sampler_and_scheduler(
        sampler if hires_sampler == SAME_SAMPLER else hires_sampler,
        scheduler if hires_scheduler == SAME_SCHEDULER else hires_scheduler,
    )
    return (
        SAME_SAMPLER if found_sampler == sampler else found_sampler,
        SAME_SCHEDULER if found_scheduler == scheduler else found_scheduler,
    )


def get_hr_sampler_from_infotext(d: Mapping[str, Any]) -> str:
    """Sampler of an infotext's hires pass."""
    return get_hr_sampler_and_scheduler(d)[0]


def get_hr_scheduler_from_infotext(d: Mapping[str, Any]) -> str:
    """Scheduler of an infotext's hires pass."""
    return get_hr_sampler_and_scheduler(d)[1]


def fix_p_invalid_sampler_and_scheduler(p: Any) -> None:
    """Split joined or alias names of a request into the sampler's and the scheduler's.

    Raises:
        SettingsError: unknown name.
    """
    p.sampler_name, p.scheduler = get_sampler_and_scheduler(p.sampler_name, p.scheduler, convert_automatic=False)
