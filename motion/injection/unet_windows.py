"""Window scope "unet": the UNet runs once per window, on copies of the rows of that window's frames alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[..., Any]

_LISTS_OF_ROWS = ("cond_indices", "uncond_indices")
"""In the options that Forge passes: the rows of the call that are conds, and unconds."""


@contextmanager
def forward_replaced(unet: nn.Module, run: Callable[[Forward, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
    """Have `run(forward, args, kwargs)` in place of this instance's `forward`; what was there comes back.

    Others do the same, ControlNet among them. One that put its own around ours, and takes it off only later, calls the
    forward from before us once this block is left.
    """
    inner, attributes = unet.forward, vars(unet)
    before = attributes.get("forward")
    is_active = [True]

    def forward(*args: Any, **kwargs: Any) -> Any:
        return run(inner, args, kwargs) if is_active[0] else inner(*args, **kwargs)

    attributes["forward"] = forward
    try:
        yield
    finally:
        is_active[0] = False
        if attributes.get("forward") is forward:
            if before is None:
                del attributes["forward"]
            else:
                attributes["forward"] = before


def take_rows(value: Any, num_rows: int, places: Tensor) -> Any:
    """The rows `places` of every tensor in `value` that has `num_rows` of them, as copies; all else as it is.

    So what each row has of its own (latents, conds, vectors, ControlNet's residuals) is told from what all rows share.
    Lists, tuples and dicts are looked into, and made anew; lists of the call's rows become those of the part. A tensor
    that waits in the CPU's memory comes to the device of `places` window by window.

    Args:
        value: an argument of the UNet.
        num_rows: rows of the whole call.
        places: int64, the rows to take, on the UNet's device.
    """
    if isinstance(value, Tensor):
        if value.dim() == 0 or value.shape[0] != num_rows:
            return value
        return value.index_select(0, places.to(value.device)).to(places.device)
    if type(value) is dict:
        return {
            key: [place for place, row in enumerate(places.tolist()) if row in item]
            if key in _LISTS_OF_ROWS
            else take_rows(item, num_rows, places)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return type(value)(take_rows(item, num_rows, places) for item in value)
    return value


class RowBlend:
    """Sum of the windows' predictions by weight, `r c h w`, in float32 on the device of the predictions."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._total: Tensor | None = None
        self._dtype = torch.float32

    def add(self, predicted: Tensor, places: Tensor, weights: tuple[float, ...]) -> None:
        """Take in one window.

        Args:
            predicted: `(b l) c h w`.
            places: int64, the row of the call that each of its rows is, each once.
            weights: one for each of the l frames.
        """
        if self._total is None:
            shape = (self._num_rows, *predicted.shape[1:])
            self._total = torch.zeros(shape, dtype=torch.float32, device=predicted.device)
            self._dtype = predicted.dtype
        each = torch.tensor(weights, device=predicted.device).repeat(len(places) // len(weights))
        self._total.index_add_(0, places, predicted.float() * each[:, None, None, None])

    def result(self) -> Tensor:
        """The blend in the predictions' dtype, once every window has been added."""
        assert self._total is not None, "a clip has a window"
        return self._total.to(self._dtype)
