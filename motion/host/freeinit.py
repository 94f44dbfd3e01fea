"""FreeInit in a web UI: the sampler of a request's first pass runs several times, inside our `p.sample` wrapper.

A sampler is an object that the host makes for one pass and then asks once for samples. Its two methods for that are
replaced on the instance when the pass begins, so that everything around them, hooks of other extensions included,
happens once. The hires pass is left alone: it starts from the clip of the first pass, low frequencies and all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from modules import sd_samplers_common, shared
from torch import Tensor

from motion.errors import InjectionError
from motion.host.adapter import HostAdapter
from motion.noise.freeinit import FreeInit, start_sigma

_MISSING = object()


class FreeInitSampling:
    """FreeInit for one request.

    Args:
        p: the host's processing object.
        free_init: what the request asks for.
        host: its adapter.
        begin_sampling: called when an iteration begins.
    """

    def __init__(self, p: Any, free_init: FreeInit, host: HostAdapter, begin_sampling: Callable[[], None]) -> None:
        self._p = p
        self._free_init = free_init
        self._host = host
        self._begin_sampling = begin_sampling
        self._is_announced = False
        self._sampler: Any = None
        self._methods: dict[str, tuple[Any, Any]] = {}
        self._is_first_step = False
        self._has_run = False
        self._start: Tensor | None = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While in the context, the sampler that the first pass begins with runs all iterations.

        Raises:
            InjectionError: it never ran although sampling ended.
        """
        self._has_run = False
        self._announce()
        try:
            yield
            if not self._has_run and not self._host.interrupted():
                raise InjectionError(
                    "FreeInit must run this request's sampler, but another extension put its own in its place. Turn "
                    "that extension off, or set `freeinit_iterations` to 1."
                )
        finally:
            self._give_back()

    def begin_pass(self) -> None:
        """Sampling of a pass is about to begin, with the sampler that `p` has now."""
        sampler = self._p.sampler
        if getattr(self._p, "is_hr_pass", False) or sampler is self._sampler:
            return
        self._give_back()
        self._sampler = sampler
        sample, sample_img2img = sampler.sample, sampler.sample_img2img

        def repeated(p: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            return self._run(sampler, lambda noise: sample(p, noise, *args, **kwargs), x, None)

        def repeated_img2img(p: Any, x: Tensor, noise: Tensor, *args: Any, **kwargs: Any) -> Any:
            return self._run(sampler, lambda noise: sample_img2img(p, x, noise, *args, **kwargs), noise, x)

        for name, method in (("sample", repeated), ("sample_img2img", repeated_img2img)):
            self._methods[name] = method, vars(sampler).get(name, _MISSING)
            setattr(sampler, name, method)

    def begin_step(self, x: Tensor) -> None:
        """A denoiser step begins; the last rows of `x` are the clip's frames."""
        if self._is_first_step:
            self._is_first_step = False
            self._start = x.detach().clone()

    def _run(self, sampler: Any, sample: Callable[[Tensor], Any], noise: Tensor, picture: Tensor | None) -> Any:
        """Sample again and again; `sample` turns unit noise, f c h w, into latents."""
        if sampler is not self._sampler:  # ours no longer, but somebody's wrapper still calls us
            return sample(noise)
        self._has_run = True
        first = noise.clone()
        for iteration in range(self._free_init.iterations - 1):
            with self._iteration(iteration):
                samples = sample(noise)
            if self._host.interrupted() or self._start is None:
                return samples
            noise = self._next_noise(samples, first, noise, picture)
            shared.state.nextjob()
        with self._iteration(self._free_init.iterations - 1):
            return sample(noise)

    def _next_noise(self, samples: Tensor, first: Tensor, last: Tensor, picture: Tensor | None) -> Tensor:
        """Noise of the next iteration; what is fresh in it comes from the host, which draws it by the frames' seeds."""
        fresh = self._p.rng.next()
        if picture is None:
            return self._free_init.next_noise(samples, first, fresh, float(self._host.alphas_cumprod()[-1]))
        fresh = fresh * (getattr(self._p, "initial_noise_multiplier", None) or 1.0)
        assert self._start is not None
        try:
            sigma = start_sigma(self._start[-len(last) :], picture, last)
        except ValueError as error:
            raise InjectionError(
                f"FreeInit can't tell how much noise the picture was given: {error} Set `freeinit_iterations` to 1, or "
                "turn off what changes the latents before the first step."
            ) from error
        return self._free_init.next_noise_on_picture(samples, first, fresh, picture, sigma)

    @contextmanager
    def _iteration(self, iteration: int) -> Iterator[None]:
        self._begin_sampling()
        self._start, self._is_first_step = None, True
        before, shared.state.textinfo = shared.state.textinfo, f"FreeInit {iteration + 1}/{self._free_init.iterations}"
        try:
            with self._steps_of(iteration):
                yield
        finally:
            shared.state.textinfo = before
            self._is_first_step = False

    @contextmanager
    def _steps_of(self, iteration: int) -> Iterator[None]:
        """While in the context, the request's steps, which samplers read, are those of one iteration."""
        steps = self._p.steps
        self._p.steps = self._free_init.steps(iteration, steps)
        try:
            yield
        finally:
            self._p.steps = steps

    def _announce(self) -> None:
        """Let the host's progress count all iterations of all clips, each as one job."""
        if self._is_announced:
            return
        self._is_announced = True
        p = self._p
        total = 0
        for iteration in range(self._free_init.iterations):
            with self._steps_of(iteration):
                is_from_picture = getattr(p, "init_latent", None) is not None
                total += sd_samplers_common.setup_img2img_steps(p)[1] + 1 if is_from_picture else p.steps
        if getattr(p, "enable_hr", False):
            total += p.hr_second_pass_steps or p.steps
        shared.state.job_count += (self._free_init.iterations - 1) * p.n_iter
        shared.total_tqdm.updateTotal(total * p.n_iter)

    def _give_back(self) -> None:
        """Take our methods from the sampler, unless somebody has put others over them since."""
        sampler, self._sampler = self._sampler, None
        methods, self._methods = self._methods, {}
        for name, (ours, before) in methods.items():
            if vars(sampler).get(name) is not ours:
                continue
            if before is _MISSING:
                delattr(sampler, name)
            else:
                setattr(sampler, name, before)
