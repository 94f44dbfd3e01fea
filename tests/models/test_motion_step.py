"""The benchmark of a step, narrow: both networks have the same size, and what is counted is what they do."""

from __future__ import annotations

import torch

from benchmarks.long_clip import Networks
from benchmarks.motion_step import DIFFUSERS, OURS, OURS_STILL, Step, Steps, diffusers_unet, measure, share_over_flops


def test_both_networks_have_the_same_weights_and_products():
    networks, diffusers = Networks(32, 8), diffusers_unet(32)
    ours = [parameter.numel() for network in (networks.unet, networks.motion) for parameter in network.parameters()]
    assert sum(ours) == sum(parameter.numel() for parameter in diffusers.parameters())
    found, rate = measure(Steps(networks, diffusers, torch.float32), 1)
    assert 0.95 < found[OURS].multiply_adds / found[DIFFUSERS].multiply_adds < 1.05
    assert found[OURS_STILL].multiply_adds < found[OURS].multiply_adds
    assert rate > 0
    assert min(step.seconds for step in found.values()) > 0


def test_shares():
    found = {OURS: Step(4.0, 100), OURS_STILL: Step(3.0, 80), DIFFUSERS: Step(5.0, 100)}
    time, flops = share_over_flops(found)
    assert (time, round(flops, 6)) == (0.25, 0.2)
