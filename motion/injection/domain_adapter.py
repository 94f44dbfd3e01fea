"""A domain adapter beside a UNet's spatial attention for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from motion.checkpoints.domain_adapter_file import DomainAdapter
from motion.injection.low_rank_branch import LowRankBranch
from motion.injection.sites import find_sites


@contextmanager
def domain_adapter_applied(unet: nn.Module, adapter: DomainAdapter, strength: float) -> Iterator[None]:
    """Add strength · up(down(x)) to the linear layers of `unet`'s attention; hooks only, removed by handle.

    Nothing is merged: a web UI's LoRA keeps a copy of the weights that it first sees, and would put a merged one back
    for ever.

    Args:
        unet: any LDM-layout UNet (ldm, sgm, Forge's, reForge's, ours).
        adapter: the adapter.
        strength: α; at 0 nothing is hooked.

    Raises:
        InjectionError: the UNet has no LDM layout.
        CheckpointError: the adapter has a part for which the UNet has no layer, or one of another shape.
    """
    with ExitStack() as stack:
        if strength != 0:
            layers = spatial_layers(unet)
            for name, delta in adapter.deltas.items():
                adapter.check_fits(delta, _shape(layers.get(name)))
            for name, delta in adapter.deltas.items():
                branch = LowRankBranch(delta, strength)
                stack.callback(layers[name].register_forward_hook(branch).remove)
        yield


def spatial_layers(unet: nn.Module) -> dict[str, nn.Module]:
    """Linear layers of all spatial attentions by diffusers' names, whatever the UNet's depth.

    A site of a motion module that follows a SpatialTransformer tells where that stands: module j of a level follows
    attention j of the same level.

    Raises:
        InjectionError: the UNet has no LDM layout.
    """
    layers = {}
    for site in find_sites(unet):
        transformer = unet.get_submodule(site.path)
        if not hasattr(transformer, "transformer_blocks"):
            continue
        prefix = site.key.replace("motion_modules", "attentions")
        for name, module in transformer.named_modules(prefix=prefix):
            if name.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")):
                layers[name] = module
    return layers


def _shape(layer: nn.Module | None) -> tuple[int, int] | None:
    """(out_features, in_features); hosts have layers of their own, whose weights may be packed or not loaded yet."""
    return None if layer is None else (int(layer.out_features), int(layer.in_features))  # type: ignore[arg-type]
