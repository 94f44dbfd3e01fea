"""The steps that jobs of either tab take; part of `modules.processing`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from motion.standalone import devices, extra_networks, host_state, samplers, shared
from motion.standalone.processing_fields import CondCache, ProcessingFields
from motion.standalone.text import prompt_parser

if TYPE_CHECKING:
    from motion.standalone.extra_networks import ExtraNetworkData

opt_C = 4  # noqa: N816 - the API's name: channels of a latent
opt_f = 8  # pixels in a latent's pixel, each way


@dataclass(repr=False)
class StableDiffusionProcessing(ProcessingFields):
    """A job: what the user asks for, and the steps from there to pictures."""

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Prepare what all batches share."""

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """Latents of one batch, b c h w, or a list of pictures c h w in [-1, 1] that has `already_decoded`."""
        raise NotImplementedError

    def close(self) -> None:
        """The job is over: drop what it no longer needs."""
        self.sampler = None
        self.c = self.uc = None
        if not shared.opts.persistent_cond_cache:
            host_state.current().cond_caches.clear()

    def fill_fields_from_opts(self) -> None:
        """Take the stochastic sampling parameters that the job doesn't set from the options."""
        for name in ("s_min_uncond", "s_churn", "s_tmin", "s_tmax", "s_noise"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(shared.opts, name))
        self.s_tmax = self.s_tmax or float("inf")

    def setup_prompts(self) -> None:
        """Fill `all_prompts` and `all_negative_prompts`, styles applied.

        Raises:
            RuntimeError: lists of different lengths.
        """
        count = self.batch_size * self.n_iter
        if not isinstance(self.prompt, list) and isinstance(self.negative_prompt, list):
            count = len(self.negative_prompt)
        prompts = as_list(self.prompt, count)
        negative = as_list(self.negative_prompt, len(prompts))
        if len(prompts) != len(negative):
            raise RuntimeError(
                f"Received a different number of prompts ({len(prompts)}) and negative prompts ({len(negative)})"
            )
        self.all_prompts, self.all_negative_prompts = self._styled(prompts, negative)
        self.main_prompt = self.all_prompts[0]
        self.main_negative_prompt = self.all_negative_prompts[0]

    def _styled(self, prompts: list[str], negative: list[str]) -> tuple[list[str], list[str]]:
        styles = shared.prompt_styles
        return (
            [styles.apply_styles_to_prompt(text, self.styles) for text in prompts],
            [styles.apply_negative_styles_to_prompt(text, self.styles) for text in negative],
        )

    def parse_extra_network_prompts(self) -> None:
        """Take the tags of extra networks out of `prompts`."""
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def setup_conds(self) -> None:
        """Encode `prompts` and `negative_prompts` into `c` and `uc`."""
        prompts = prompt_parser.SdConditioning(self.prompts, width=self.width, height=self.height)
        negative = prompt_parser.SdConditioning(
            self.negative_prompts, width=self.width, height=self.height, is_negative_prompt=True
        )
        total = total_steps(self.sampler_name, self.steps)
        self.step_multiplier = total // self.steps
        self.firstpass_steps = total
        data = self.extra_network_data
        self.uc = self.get_conds_with_caching(
            prompt_parser.get_learned_conditioning, negative, total, [self.cached_uc], data
        )
        self.c = self.get_conds_with_caching(
            prompt_parser.get_multicond_learned_conditioning, prompts, total, [self.cached_c], data
        )

    def get_conds(self) -> tuple[Any, Any]:
        """(c, uc) of this pass."""
        return self.c, self.uc

    def cached_params(
        self,
        required_prompts: Any,
        steps: int,
        extra_network_data: ExtraNetworkData | None,
        hires_steps: int | None = None,
        use_old_scheduling: bool = False,
    ) -> tuple[Any, ...]:
        """All that conds depend on."""
        opts = shared.opts
        options = [opts.CLIP_stop_at_last_layers, opts.emphasis, opts.comma_padding_backtrack]
        options += [opts.sdxl_crop_left, opts.sdxl_crop_top, opts.sdxl_clip_l_skip]
        checkpoint = shared.sd_model.sd_checkpoint_info
        size = (self.width, self.height)
        return (
            list(required_prompts),
            steps,
            hires_steps,
            use_old_scheduling,
            *options,
            checkpoint,
            extra_network_data,
            size,
        )

    def get_conds_with_caching(
        self,
        function: Callable[..., Any],
        required_prompts: Any,
        steps: int,
        caches: list[CondCache],
        extra_network_data: ExtraNetworkData | None,
        hires_steps: int | None = None,
    ) -> Any:
        """`function(sd_model, required_prompts, steps, …)`, or what it returned for the same arguments before.

        Args:
            function: encodes prompts.
            required_prompts: prompts of one batch.
            steps: steps of the first pass.
            caches: places to look in; the first one takes a new result.
            extra_network_data: networks that are active.
            hires_steps: steps of the hires pass, if that is what is encoded.
        """
        old_scheduling = shared.opts.use_old_scheduling
        made_from = self.cached_params(required_prompts, steps, extra_network_data, hires_steps, old_scheduling)
        for cache in caches:
            if cache[0] is not None and cache[0] == made_from:
                return cache[1]
        with devices.autocast():
            conds = function(shared.sd_model, required_prompts, steps, hires_steps, old_scheduling)
        caches[0][:] = made_from, conds
        return conds

    def txt2img_image_conditioning(
        self, x: torch.Tensor, width: int | None = None, height: int | None = None
    ) -> torch.Tensor:
        """Image conditioning of a model that has none: zeros b 5 1 1."""
        return x.new_zeros(x.shape[0], 5, 1, 1)

    def img2img_image_conditioning(
        self,
        source_image: torch.Tensor,
        latent_image: torch.Tensor,
        image_mask: Any = None,
        round_image_mask: bool = True,
    ) -> torch.Tensor:
        """Image conditioning of a model that has none: zeros b 5 1 1."""
        return latent_image.new_zeros(latent_image.shape[0], 5, 1, 1)

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        """0: token merging is not part of this host."""
        return 0.0

    def save_samples(self) -> bool:
        """Whether images are written to disk."""
        complete = not shared.state.interrupted and not shared.state.skipped
        wanted = shared.opts.samples_save and not self.do_not_save_samples
        return bool(wanted and (complete or shared.opts.save_incomplete_images))


def as_list(value: Any, count: int) -> list[Any]:
    """A list as it is; anything else `count` times."""
    return value if isinstance(value, list) else [value] * count


def total_steps(sampler_name: str | None, steps: int) -> int:
    """Model calls of `steps` steps with a sampler."""
    config = samplers.find_sampler_config(sampler_name)
    return config.total_steps(steps) if config else steps


def get_fixed_seed(seed: Any) -> Any:
    """A seed to use: random for -1, "" and None; lists stay."""
    if isinstance(seed, list):
        return seed
    if isinstance(seed, str):
        seed = int(seed) if seed.strip().lstrip("-").isdigit() else -1
    if seed is None or seed == -1:
        return random.randrange(4294967294)
    return seed


def fix_seed(p: StableDiffusionProcessing) -> None:
    """Draw the seeds that are to be random now, so that they can be used again."""
    p.seed = get_fixed_seed(p.seed)
    p.subseed = get_fixed_seed(p.subseed)
