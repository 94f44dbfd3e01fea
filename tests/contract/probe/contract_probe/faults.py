"""Things that go wrong on request, each once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path


class ProbeFault(RuntimeError):
    """Raised on purpose."""


def fail_call(module, number: int, name: str = "UNet call"):
    """Raise in the call of this number, counted from 1, of the UNet or a part of it; returns the hook's handle."""
    calls = iter(range(1, number + 1))

    def hook(module, args) -> None:
        if next(calls, number) == number:
            raise ProbeFault(f"probe: {name} {number}")

    return module.register_forward_pre_hook(hook)


def fail_decoder(vae) -> None:
    """Raise in the next decoding, then be gone."""

    def hook(module, args) -> None:
        handle.remove()
        raise ProbeFault("probe: VAE decoder")

    handle = vae.decoder.register_forward_pre_hook(hook)


def break_output_folder(folder: Path) -> None:
    """Put a file where the clip's folder is."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("probe: in the way")


def slow_down(module, seconds: float):
    """Make each call of the UNet or a part of it take at least this long; returns the hook's handle."""
    return module.register_forward_pre_hook(lambda module, args: time.sleep(seconds))


def neighbour(unet) -> list:
    """Hooks as another extension would install them, which change the result a little; returns their handles."""

    def before(module, args):
        return (args[0] * 1.001, *args[1:])

    def after(module, args, output):
        return output * 0.999

    block = unet.get_submodule("input_blocks.1.0")
    return [block.register_forward_hook(after), unet.out.register_forward_pre_hook(before)]
