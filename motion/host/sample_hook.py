"""Our place around one request's `p.sample`, `p.sample_hr_pass`, `p.get_conds_with_caching` and `p.close`.

Hosts swallow what script hooks raise, but not what `p.sample` raises; and a sampler is made, run and thrown away inside
it. So the model is only ever changed between its begin and its end. Methods are replaced on the instance, once, and
look up the request's current generation when called: loopback, SD upscale and ControlNet run one `p` several times.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Protocol

_CURRENT = "_motion_generation"
_METHODS = ("sample", "sample_hr_pass", "get_conds_with_caching", "close")


class Generation(Protocol):
    """What the wrappers call. Each takes the host's own method and its arguments."""

    def sample(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around `p.sample`."""
        ...

    def sample_hr_pass(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around `p.sample_hr_pass`."""
        ...

    def get_conds_with_caching(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around `p.get_conds_with_caching`."""
        ...

    def close(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Around `p.close`."""
        ...


def current_generation(p: Any) -> Any:
    """The generation that `p` runs now, or None."""
    return vars(p).get(_CURRENT)


def set_generation(p: Any, generation: Generation | None) -> None:
    """Make `generation` the one that `p` runs; None when the request doesn't ask for a clip."""
    setattr(p, _CURRENT, generation)
    if generation is not None:
        for name in _METHODS:
            if hasattr(p, name):
                _wrap(p, name)


def _wrap(p: Any, name: str) -> None:
    method = getattr(p, name)
    owner = getattr(method, "motion_owner", None)
    if owner is p:
        return
    if owner is not None:  # `p` is a shallow copy (X/Y/Z plot): the wrapper came with it and runs the other p
        method = _rebound(method.motion_original, owner, p)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        generation = current_generation(p)
        if generation is None:
            return method(*args, **kwargs)
        return getattr(generation, name)(method, *args, **kwargs)

    wrapper.motion_owner = p  # type: ignore[attr-defined]
    wrapper.motion_original = method  # type: ignore[attr-defined]
    setattr(p, name, wrapper)


def _rebound(method: Callable[..., Any], owner: Any, p: Any) -> Callable[..., Any]:
    function = getattr(method, "__func__", None)
    if function is not None and getattr(method, "__self__", None) is owner:
        return types.MethodType(function, p)
    return method
