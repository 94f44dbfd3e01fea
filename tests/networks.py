"""Tiny networks with random weights, and a picture of everything that a patch could leave changed in one."""

import torch

from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel

FRAMES = 4
UNET = UNetConfig(model_channels=32, channel_mult=(1, 2, 2), transformer_depth=(1, 1, 0), num_heads=4, context_dim=16)


def randomise(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 1.0 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if parameter.dim() == 1:
                parameter.add_(0.5)
    return module.eval().requires_grad_(False)


def make_unet(seed=0, config=UNET):
    return randomise(UNetModel(config), seed)


def make_motion(seed=1, max_length=8, mid=True, **options):
    config = MotionModuleConfig(
        down_channels=(32, 64, 64),
        up_channels=(64, 64, 32),
        mid_channels=64 if mid else None,
        max_length=max_length,
        **options,
    )
    model = MotionModel(config)
    table = {name: buffer.clone() for name, buffer in model.named_buffers()}
    randomise(model, seed)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, table[name])
    return model


def inputs(rows, seed=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, 8, 8, generator=generator)
    return x, torch.full((rows,), 7.0), torch.randn(rows, 5, 16, generator=generator)


def state_of(module):
    """Everything about a module tree that an injection could leave changed."""
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks_with_kwargs",
        "_backward_hooks",
        "_forward_hooks_always_called",
        "_state_dict_hooks",
    )
    return {
        name: (
            id(child),
            type(child),
            sorted(vars(child)),
            {key: list(vars(child)[key].items()) for key in hooks},
            {key: (id(value), value.clone()) for key, value in child._parameters.items() if value is not None},
            {key: (id(value), value.clone()) for key, value in child._buffers.items() if value is not None},
        )
        for name, child in module.named_modules()
    }


def assert_same_state(before, after):
    assert before.keys() == after.keys()
    for name, old in before.items():
        new = after[name]
        assert old[:4] == new[:4], name
        for old_tensors, new_tensors in zip(old[4:], new[4:], strict=True):
            assert {k: v[0] for k, v in old_tensors.items()} == {k: v[0] for k, v in new_tensors.items()}
            assert all(torch.equal(v[1], new_tensors[k][1]) for k, v in old_tensors.items())
