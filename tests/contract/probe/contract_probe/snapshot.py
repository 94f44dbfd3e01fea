"""Everything of a loaded model, and of the code around it, that a clip must leave as it was."""

from __future__ import annotations

import json
import sys
import zlib

import torch
from torch import nn

from contract_probe.parts import patchers_of, schedule_of, text_encoder_of, unet_of, vae_of

HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
CONTENT_TABLES = ("_parameters", "_buffers", "_modules", *HOOK_TABLES)
MEMORY_MODULES = ("backend.memory_management", "ldm_patched.modules.model_management")
# The host replaces `torch` in here each time a sampler starts.
WATCHED_MODULES = (
    *("modules.processing", "modules.sd_samplers", "modules.sd_samplers_common", "modules.sd_samplers_kdiffusion"),
    *("modules.sd_samplers_timesteps", "modules.sd_samplers_cfg_denoiser", "modules.sd_models", "modules.images"),
    *("backend.sampling.sampling_function", "backend.sampling.condition", "backend.attention", "backend.operations"),
    *("ldm_patched.modules.samplers", "ldm_patched.modules.model_base", "ldm_patched.modules.ops", *MEMORY_MODULES),
    *("torch.nn.functional", "torch.nn.modules.module"),
)
HASHED_WHOLE = ("unet", "vae", "schedule")


def take_snapshot(sd_model) -> dict[str, str]:
    """Name of each watched thing -> a text that changes when it does."""
    seen = {}
    parts = {"unet": unet_of(sd_model), "vae": vae_of(sd_model), "text": text_encoder_of(sd_model)}
    if schedule_of(sd_model) is not None:
        parts["schedule"] = schedule_of(sd_model)
    for part, root in parts.items():
        for path, module in root.named_modules():
            name = f"{part}.{path}"
            seen[f"module {name}"] = f"{type(module).__qualname__} {id(module)} training={module.training}"
            seen[f"hooks {name}"] = _hooks(module)
            seen[f"attributes {name}"] = _attributes(module)
        for path, tensor in (*root.named_parameters(), *root.named_buffers()):
            seen[f"tensor {part}.{path}"] = _tensor(tensor, whole=part in HASHED_WHOLE)
    for name, tensor in _own_tensors(sd_model):
        seen[f"tensor sd_model.{name}"] = f"{tensor.dtype} {tuple(tensor.shape)} {_crc(tensor)}"
    seen["attributes sd_model"] = " ".join(sorted(vars(sd_model)))
    seen.update({f"patcher {name}": _patcher(patcher) for name, patcher in patchers_of(sd_model).items()})
    seen.update({f"loaded in {name}": _loaded_models(name) for name in MEMORY_MODULES if name in sys.modules})
    seen.update(_code({type(module) for root in parts.values() for module in root.modules()}))
    seen["options"] = json.dumps(_options(), sort_keys=True, default=str)
    return seen


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line for each thing that is not as before."""
    names = sorted(before.keys() | after.keys())
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names if before.get(name) != after.get(name)]


def _hooks(module: nn.Module) -> str:
    return "; ".join(
        f"{table}: {[(key, getattr(hook, '__qualname__', str(hook))) for key, hook in vars(module)[table].items()]}"
        for table in HOOK_TABLES
        if vars(module).get(table)
    )


def _attributes(module: nn.Module) -> str:
    """Names of the instance's own attributes, with the value of plain ones and the identity of functions."""
    described = []
    for name, value in sorted(vars(module).items()):
        if name in CONTENT_TABLES:
            continue
        shown = repr(value) if isinstance(value, str | int | float | bool | type(None)) else type(value).__name__
        described.append(f"{name}={shown}{id(value) if callable(value) else ''}")
    return " ".join(described)


def _patcher(patcher) -> str:
    """What a patcher would change in the UNet; its clones come and go."""
    tables = {name: value for name, value in vars(patcher).items() if isinstance(value, dict | list | set)}
    counts = {name: len(value) for name, value in sorted(tables.items()) if name != "model_options"}
    return f"{counts} {_keys(patcher.model_options)}"


def _keys(options) -> list | str:
    if not isinstance(options, dict):
        return type(options).__name__
    return [(str(key), _keys(value)) for key, value in sorted(options.items(), key=lambda pair: str(pair[0]))]


def _loaded_models(name: str) -> str:
    """The networks that the host's memory management knows, by class."""
    loaded = [
        type(one.model.model).__name__ for one in sys.modules[name].current_loaded_models if one.model is not None
    ]
    return str(sorted(loaded))


def _tensor(tensor: torch.Tensor, *, whole: bool) -> str:
    content = _crc(tensor) if whole else f"{tensor.detach().sum(dtype=torch.float64).item():.17g}"
    place = f"{id(tensor)} {tensor.data_ptr()} {tensor.device}"
    return f"{tensor.dtype} {tuple(tensor.shape)} {place} grad={tensor.requires_grad} {content}"


def _crc(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()) if tensor.numel() else 0


def _own_tensors(sd_model):
    """Tensors that hang on the model itself, such as its noise schedule."""
    own = {**vars(sd_model), **dict(getattr(sd_model, "_buffers", {}))}
    return [(name, value) for name, value in sorted(own.items()) if isinstance(value, torch.Tensor) and value.ndim]


def _code(classes: set[type]) -> dict[str, str]:
    """Functions of the host, of torch and of the networks' classes: none may be replaced."""
    seen = {}
    for owner in sorted(classes | {nn.Module, nn.GroupNorm}, key=lambda owner: (owner.__module__, owner.__qualname__)):
        functions = {name: id(value) for name, value in vars(owner).items() if callable(value)}
        seen[f"class {owner.__module__}.{owner.__qualname__}"] = str(functions)
    for name in WATCHED_MODULES:
        module = sys.modules.get(name)
        if module is not None:
            seen[f"module {name}"] = str({key: id(value) for key, value in vars(module).items() if callable(value)})
    hooks = sys.modules["torch.nn.modules.module"]
    seen["global hooks"] = str([len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)])
    return seen


def _options() -> dict:
    from modules import shared

    return dict(shared.opts.data)
