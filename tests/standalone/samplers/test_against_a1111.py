"""All samplers and their options against what AUTOMATIC1111 1.10.1 makes of the same closed-form model.

tests/data/a1111_samplers.npz holds the results, b c h w, of a running 1.10.1 on a CPU in fp32 whose `apply_model` and
`get_learned_conditioning` were replaced by those of `GaussianModel`, for the requests in a1111_samplers.json over the
API. Start pictures and masks were put in by a script's process_before_every_sampling. No case has a σ half-way between
two timesteps that LCM or a quantized schedule rounds to, where the last bit of a logarithm, hence the CPU, decides.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from motion.standalone import rng, samplers, sd_models
from tests.standalone.samplers.closed_form import GaussianModel, request, sample, sample_img2img

DATA = Path(__file__).parents[2] / "data"
CASES = json.loads((DATA / "a1111_samplers.json").read_text(encoding="utf-8"))
SEEDS = [1234, 1235]
SHAPE = (4, 4, 4)
START = torch.linspace(-2, 2, 64).view(1, *SHAPE).repeat(2, 1, 1, 1)


@pytest.fixture(scope="module")
def recorded():
    with np.load(DATA / "a1111_samplers.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def noise(fields):
    variation = fields.get("subseed_strength", 0.0)
    return rng.ImageRNG(
        SHAPE,
        [SEEDS[0]] * 2 if variation else SEEDS,
        subseeds=[fields.get("subseed", 0) + image for image in range(2)],
        subseed_strength=variation,
        seed_resize_from_h=fields.get("seed_resize_from_h", 0),
        seed_resize_from_w=fields.get("seed_resize_from_w", 0),
    )


def run(fields, is_img2img):
    model = GaussianModel(text_shift=0.01)
    defaults = {"steps": 6, "cfg_scale": 5.0, "denoising_strength": 0.7, "scheduler": "Automatic"}
    changes = {name: value for name, value in fields.items() if name not in ("prompt", "negative_prompt")}
    prompt, negative = fields.get("prompt", "a prompt"), fields.get("negative_prompt", "not this one")
    p = request(model, [prompt] * 2, [negative] * 2, shape=SHAPE, **{**defaults, **changes})
    p.rng = noise(fields)
    if "masked" in negative:
        p.mask = torch.zeros(SHAPE)
        p.mask[..., :2] = 1.0
        p.nmask = 1 - p.mask
    # img2img makes its sampler before the host applies the options' schedule, txt2img after it.
    sampler = samplers.create_sampler(fields["sampler_name"], model) if is_img2img else None
    sd_models.apply_alpha_schedule_override(model, p)
    if sampler is None:
        return sample(samplers.create_sampler(fields["sampler_name"], model), p)
    result = sample_img2img(sampler, p, START)
    return result if p.mask is None else result * p.nmask + START * p.mask


@pytest.mark.parametrize("name", CASES)
def test_result_is_a1111_s(host, recorded, name):
    case = CASES[name]
    host.opts.data.update(case["options"])
    result = run(case["fields"], case["kind"] == "img2img")
    # With σ up to 4518, float32 leaves fewer digits after the point.
    tolerance = 2e-4 if "zero terminal SNR" in name else 2e-5
    torch.testing.assert_close(result, recorded[name], rtol=tolerance, atol=tolerance)
