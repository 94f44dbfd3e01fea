"""`modules.sd_samplers_cfg_denoiser`: classifier-free guidance around a denoiser.

Rows of one step are all conds, interleaved per picture where AND gives a picture several, then one uncond per picture:
`[p0c0, p0c1, p1c0, p1c1, …, p0u, p1u, …]`. Extensions count on this order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from motion.standalone import script_callbacks, shared
from motion.standalone.samplers.common import InterruptedException, store_latent
from motion.standalone.samplers.cond_rows import TextRows, for_model, join, take, tokens_of, with_tokens
from motion.standalone.script_base import MaskBlendArgs
from motion.standalone.text.prompt_parser import reconstruct_cond_batch, reconstruct_multicond_batch

if TYPE_CHECKING:
    from motion.standalone.samplers.common import Sampler

CondsList = list[list[tuple[int, float]]]
"""Per picture, (row, weight) of each of its conds."""


@dataclass(frozen=True)
class ModelRows:
    """Rows that go through the model in one step.

    Attributes:
        x: noisy latents, rows c h w.
        sigma: noise level or timestep, one per row.
        image_cond: conditioning picture of inpainting models, rows first.
    """

    x: torch.Tensor
    sigma: torch.Tensor
    image_cond: torch.Tensor

    @classmethod
    def of_step(
        cls, x: torch.Tensor, sigma: torch.Tensor, image_cond: torch.Tensor, conds_list: CondsList
    ) -> ModelRows:
        """Each picture once per cond, then each once for its uncond."""
        repeats = torch.tensor([len(conds) for conds in conds_list], device=x.device)
        return cls(
            *(torch.cat([rows.repeat_interleave(repeats, dim=0), rows]) for rows in (x, sigma, image_cond)),
        )

    def __getitem__(self, rows: slice) -> ModelRows:
        return ModelRows(self.x[rows], self.sigma[rows], self.image_cond[rows])


class CFGDenoiser(nn.Module):
    """Denoiser that the sampling functions call: x and σ of F pictures -> F guided predictions.

    Attributes:
        sampler: the sampler that owns it.
        p: the request.
        step: model calls made so far.
        steps: steps of this sampling.
        total_steps: model calls in all of them.
        mask: 1 where an inpainted picture keeps the original.
        nmask: 1 − mask.
        init_latent: latents of the original.
        mask_before_denoising: blend the original into the noisy input instead of the prediction.
        padded_cond_uncond: the last call padded prompt or negative prompt with the empty prompt.
        padded_cond_uncond_v0: the last call repeated or cut the negative prompt's last token.
        need_last_noise_uncond: keep the uncond prediction in `last_noise_uncond`.
        cond_scale_miltiplier: factor on the guidance scale (the misspelling is the web UI's).
    """

    mask_before_denoising = False

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.sampler = sampler
        self.model_wrap: nn.Module | None = None
        self.p: Any = None
        self.step = 0
        self.steps: int | None = None
        self.total_steps: int = 0
        self.mask: torch.Tensor | None = None
        self.nmask: torch.Tensor | None = None
        self.init_latent: torch.Tensor | None = None
        self.image_cfg_scale: float | None = None
        self.padded_cond_uncond = False
        self.padded_cond_uncond_v0 = False
        self.need_last_noise_uncond = False
        self.last_noise_uncond: torch.Tensor | None = None
        self.cond_scale_miltiplier = 1.0

    @property
    def inner_model(self) -> nn.Module:
        """The denoiser without guidance; made on first use."""
        if self.model_wrap is None:
            self.model_wrap = self.make_inner_model()
        return self.model_wrap

    def make_inner_model(self) -> nn.Module:
        """A denoiser for the sampler's model."""
        raise NotImplementedError

    def get_pred_x0(self, x_in: torch.Tensor, x_out: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Picture without noise that a prediction stands for, b c h w."""
        return x_out

    def forward(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        uncond: Any,
        cond: Any,
        cond_scale: float,
        s_min_uncond: float,
        image_cond: torch.Tensor,
    ) -> torch.Tensor:
        """One guided prediction.

        Args:
            x: noisy latents, f c h w.
            sigma: noise level, or timestep, of each.
            uncond: prompt schedules of the negative prompts.
            cond: prompt schedules of the prompts, AND parts apart.
            cond_scale: guidance scale.
            s_min_uncond: below this σ every other step leaves the uncond out; 0 for never.
            image_cond: conditioning picture of each.

        Raises:
            InterruptedException: the user asked to stop.
        """
        if shared.state.interrupted or shared.state.skipped:
            raise InterruptedException
        conds_list, text_cond = reconstruct_multicond_batch(cond, self.step)
        text_uncond = reconstruct_cond_batch(uncond, self.step)
        if self.mask_before_denoising:
            x = self._blend_original(x, sigma)

        rows, text_cond, text_uncond = self._before_call(
            ModelRows.of_step(x, sigma, image_cond, conds_list), text_cond, text_uncond
        )
        skip_uncond = self._skips_uncond(sigma, s_min_uncond)
        x_out = self._predict(rows, text_cond, text_uncond, len(conds_list), skip_uncond)
        first_rows = [conds[0][0] for conds in conds_list]
        if skip_uncond:
            x_out = torch.cat([x_out, x_out[first_rows]])
        self._after_call(x_out, len(conds_list))

        scale = 1.0 if skip_uncond else cond_scale * self.cond_scale_miltiplier
        denoised = self.combine_denoised(x_out, conds_list, text_uncond, scale)
        if not self.mask_before_denoising:
            denoised = self._blend_original(denoised, sigma)
        self.sampler.last_latent = self.get_pred_x0(rows.x[first_rows], x_out[first_rows], sigma)
        store_latent(self.sampler.last_latent)
        return self._finish_step(denoised)

    def combine_denoised(
        self, x_out: torch.Tensor, conds_list: CondsList, uncond: TextRows, cond_scale: float
    ) -> torch.Tensor:
        """Guidance: uncond + Σ weight · scale · (cond − uncond), f c h w (arXiv:2207.12598, arXiv:2206.01714)."""
        denoised_uncond = x_out[-uncond.shape[0] :]
        denoised = denoised_uncond.clone()
        for picture, conds in enumerate(conds_list):
            for row, weight in conds:
                denoised[picture] += (x_out[row] - denoised_uncond[picture]) * (weight * cond_scale)
        return denoised

    def _before_call(
        self, rows: ModelRows, text_cond: TextRows, text_uncond: TextRows
    ) -> tuple[ModelRows, TextRows, TextRows]:
        state = shared.state
        params = script_callbacks.CFGDenoiserParams(
            rows.x,
            rows.image_cond,
            rows.sigma,
            state.sampling_step,
            state.sampling_steps,
            text_cond,
            text_uncond,
            self,
        )
        script_callbacks.cfg_denoiser_callback(params)
        rows = replace(rows, x=params.x, sigma=params.sigma, image_cond=params.image_cond)
        return rows, params.text_cond, params.text_uncond

    def _skips_uncond(self, sigma: torch.Tensor, s_min_uncond: float) -> bool:
        opts, infotext = shared.opts, self.p.extra_generation_params
        if opts.skip_early_cond != 0 and self.step / self.total_steps <= opts.skip_early_cond:
            infotext["Skip Early CFG"] = opts.skip_early_cond
            return True
        if (self.step % 2 or opts.s_min_uncond_all) and s_min_uncond > 0 and sigma[0] < s_min_uncond:
            infotext["NGMS"] = s_min_uncond
            if opts.s_min_uncond_all:
                infotext["NGMS all steps"] = opts.s_min_uncond_all
            return True
        return False

    def _predict(
        self, rows: ModelRows, text_cond: TextRows, text_uncond: TextRows, num_pictures: int, skip_uncond: bool
    ) -> torch.Tensor:
        if skip_uncond:
            rows = rows[slice(0, len(rows.x) - num_pictures)]
        text_cond, text_uncond = self._pad_text(text_cond, text_uncond)
        together = shared.opts.batch_cond_uncond
        num_conds, num_unconds = text_cond.shape[0], text_uncond.shape[0]
        if skip_uncond or text_cond.shape[1] == text_uncond.shape[1]:
            text = text_cond if skip_uncond else join(text_cond, text_uncond)
            return self._predict_in_parts(rows, text, text.shape[0] if together else num_pictures)
        size = num_pictures * 2 if together else num_pictures
        conds = self._predict_in_parts(rows[slice(0, num_conds)], text_cond, size)
        unconds = self._predict_in_parts(rows[slice(num_conds, None)], text_uncond, num_unconds)
        return torch.cat([conds, unconds])

    def _predict_in_parts(self, rows: ModelRows, text: TextRows, size: int) -> torch.Tensor:
        parts = []
        for begin in range(0, text.shape[0], size):
            part = slice(begin, begin + size)
            chosen = rows[part]
            cond = for_model(take(text, part), chosen.image_cond)
            parts.append(self.inner_model(chosen.x, chosen.sigma, cond=cond))
        return torch.cat(parts)

    def _pad_text(self, text_cond: TextRows, text_uncond: TextRows) -> tuple[TextRows, TextRows]:
        self.padded_cond_uncond = self.padded_cond_uncond_v0 = False
        if text_cond.shape[1] != text_uncond.shape[1]:
            if shared.opts.pad_cond_uncond_v0:
                return self.pad_cond_uncond_v0(text_cond, text_uncond)
            if shared.opts.pad_cond_uncond:
                return self.pad_cond_uncond(text_cond, text_uncond)
        return text_cond, text_uncond

    def pad_cond_uncond(self, cond: TextRows, uncond: TextRows) -> tuple[TextRows, TextRows]:
        """Append the empty prompt to the shorter one until both have the same number of tokens; rows n d."""
        empty = self.sampler.sd_model.cond_stage_model_empty_prompt
        missing = (cond.shape[1] - uncond.shape[1]) // empty.shape[1]
        if missing < 0:
            cond = _append_chunks(cond, empty, -missing)
        elif missing > 0:
            uncond = _append_chunks(uncond, empty, missing)
        self.padded_cond_uncond = missing != 0
        return cond, uncond

    def pad_cond_uncond_v0(self, cond: TextRows, uncond: TextRows) -> tuple[TextRows, TextRows]:
        """Repeat the last token of `uncond`, or cut it, to the number of tokens in `cond`; rows n d."""
        tokens = tokens_of(uncond)
        missing = cond.shape[1] - tokens.shape[1]
        if missing > 0:
            tokens = torch.cat([tokens, tokens[:, -1:].repeat(1, missing, 1)], dim=1)
        else:
            tokens = tokens[:, : cond.shape[1]]
        self.padded_cond_uncond_v0 = missing != 0
        return cond, with_tokens(uncond, tokens)

    def _blend_original(self, latent: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        if self.mask is None:
            return latent
        assert self.nmask is not None, "a request with a mask has its inverse"
        assert self.init_latent is not None, "only img2img has masks"
        blended = latent * self.nmask + self.init_latent * self.mask
        if self.p.scripts is None:
            return blended
        args = MaskBlendArgs(latent, self.nmask, self.init_latent, self.mask, blended, denoiser=self, sigma=sigma)
        self.p.scripts.on_mask_blend(self.p, args)
        return args.blended_latent

    def _after_call(self, x_out: torch.Tensor, num_pictures: int) -> None:
        state = shared.state
        params = script_callbacks.CFGDenoisedParams(x_out, state.sampling_step, state.sampling_steps, self.inner_model)
        script_callbacks.cfg_denoised_callback(params)
        if self.need_last_noise_uncond:
            self.last_noise_uncond = x_out[-num_pictures:].clone()

    def _finish_step(self, denoised: torch.Tensor) -> torch.Tensor:
        state = shared.state
        params = script_callbacks.AfterCFGCallbackParams(denoised, state.sampling_step, state.sampling_steps)
        script_callbacks.cfg_after_cfg_callback(params)
        self.step += 1
        return params.x


def _append_chunks(text: TextRows, empty: torch.Tensor, count: int) -> TextRows:
    """Append the empty prompt's tokens, 1 n d, to each row `count` times."""
    tokens = tokens_of(text)
    return with_tokens(text, torch.cat([tokens, empty.repeat(len(tokens), count, 1)], dim=1))
