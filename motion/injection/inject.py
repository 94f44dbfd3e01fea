"""`injected`: a UNet with motion modules for the length of a `with` block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from motion.errors import InjectionError
from motion.injection.branch_scale import BranchScale
from motion.injection.frame_axis import CallRows, FrameAxisNorm
from motion.injection.sites import InjectionSite, find_sites, is_res_block
from motion.injection.step_capture import StepCapture
from motion.injection.unet_windows import RowBlend, forward_replaced, take_rows
from motion.models.frame_windows import AttentionWindows
from motion.models.motion_module import MotionModel
from motion.models.site_module import FrameModule, SiteModule, takes_windows, wants_step
from motion.protocols import FrameWindows, RowsOfCall, UNetWindow, WindowRun


class Injection:
    """What runs inside one UNet while its motion modules are in.

    Hooks on the UNet itself open and close each call: the first one learns the layout of the rows, the last one checks
    that every motion module ran, so that a clip of unrelated stills is impossible.
    """

    def __init__(
        self,
        modules: Mapping[str, SiteModule],
        rows: CallRows,
        scale: BranchScale,
        capture: StepCapture,
        dtype: torch.dtype | None,
        windows: WindowRun | None = None,
    ) -> None:
        self._modules = modules
        self._rows = rows
        self._scale = scale
        self._capture = capture
        self._dtype = dtype
        self._window_run = windows
        self._attention_windows: AttentionWindows | None = None
        self._unet_windows: FrameWindows | None = None
        self._ran: list[str] = []

    @property
    def num_calls(self) -> int:
        """UNet calls that ended with every motion module run."""
        return self._rows.num_calls

    @property
    def moves(self) -> bool:
        """True where the running call has motion."""
        return self._scale.moves

    def begin_call(self, unet: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the UNet."""
        x = args[0] if args else kwargs["x"]
        self._rows.begin_call(x.shape[0], x.device)
        self._scale.begin_call()
        self._take_windows(x.device)
        self._ran = []

    def _take_windows(self, device: torch.device) -> None:
        """The windows of this call; calls of one step have the same."""
        run = self._window_run
        windows = None if run is None else run.of_call()
        if run is not None and run.scope == "unet":
            self._unet_windows = windows
        elif windows is None:
            self._attention_windows = None
        elif self._attention_windows is None or self._attention_windows.windows != windows:
            self._attention_windows = AttentionWindows(windows, device)

    def frames_of_call(self, num_frames: int) -> Sequence[int]:
        """The clip's frames in the call or window that runs now (a `FramesOfCall`)."""
        return self._rows.frames

    def run_windows(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The UNet's call, made of its windows' predictions; as it would be where the clip is one window."""
        windows, self._unet_windows = self._unet_windows, None
        if windows is None:
            return forward(*args, **kwargs)
        num_rows, num_frames = self._rows.num_rows, self._rows.num_frames
        device = (args[0] if args else kwargs["x"]).device
        blend = RowBlend(num_rows)
        for index, (frames, weights) in enumerate(zip(windows.windows, windows.weights, strict=True)):
            rows = self._rows.rows_of_frames(frames)
            places = torch.tensor(rows, device=device)
            window = UNetWindow(index, len(windows.windows), frames, rows, num_frames, num_rows)
            with ExitStack() as stack:
                if self._window_run is not None and self._window_run.around_window is not None:
                    stack.enter_context(self._window_run.around_window(window))
                stack.enter_context(self._rows.window(frames, len(rows)))
                predicted = self._run_window(
                    forward, take_rows(args, num_rows, places), take_rows(kwargs, num_rows, places)
                )
            blend.add(predicted, places, weights)
        return blend.result()

    def _run_window(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        self._ran = []
        if any(map(wants_step, self._modules.values())):
            self._capture.begin_call(args, kwargs)
        predicted: Tensor = forward(*args, **kwargs)
        self._check_ran()
        return predicted

    def run_module(self, key: str, output: Tensor) -> Tensor:
        """The site's output, rows as in the call, with the temporal branch of module `key` added where it counts."""
        self._ran.append(key)  # in time: what fails below ends the call
        scale = self._scale.now(output.device)
        if not isinstance(scale, Tensor) and scale == 0:
            return output
        module = self._modules[key]
        x = self._rows.to_entries(output)
        dtype = self._dtype or next((parameter.dtype for parameter in module.parameters()), x.dtype)
        windows: dict[str, Any] = {"windows": self._attention_windows} if takes_windows(module) else {}
        if wants_step(module):
            y = module(x.to(dtype), self._rows.num_frames, scale, self._capture.step(dtype), **windows)
        else:
            y = cast(FrameModule, module)(x.to(dtype), self._rows.num_frames, scale, **windows)
        _check_same_shape(key, x, y)
        return self._rows.to_rows(y.to(output.dtype))

    def take_as_run(self) -> None:
        """The call that has begun was answered from a record, so that no motion module has to run in it."""
        self._unet_windows = None
        self._ran = list(self._modules)

    def end_call(self, unet: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Forward hook of the UNet.

        Raises:
            InjectionError: a motion module did not run exactly once, or the UNet did not run in its windows.
        """
        if self._unet_windows is not None:
            raise InjectionError(
                "The UNet should have run once for each window of frames, and ran on all frames at once. Another "
                "extension runs a UNet of its own; turn it off for this clip, or choose the window scope 'attention'."
            )
        self._check_ran()
        self._rows.num_calls += 1

    def _check_ran(self) -> None:
        if sorted(self._ran) != sorted(self._modules):
            missing = sorted(set(self._modules) - set(self._ran))
            raise InjectionError(
                f"{len(self._modules)} motion modules should have run once each in a UNet call, {len(self._ran)} did"
                f"{' (missing: ' + ', '.join(missing[:3]) + ')' if missing else ''}. Another extension replaces the "
                "UNet's blocks (TensorRT, a compiled UNet, DeepCache); turn it off for this clip."
            )


def _check_same_shape(key: str, x: Tensor, y: Tensor) -> None:
    if y.shape != x.shape:
        raise InjectionError(
            f"{key}: the motion module must return the feature map's shape {list(x.shape)}, got {list(y.shape)}. "
            "Report this to the author of the package that it belongs to."
        )


@contextmanager
def injected(
    unet: nn.Module,
    motion_model: MotionModel,
    num_frames: int,
    *,
    scale: float | Sequence[float] = 1.0,
    moves_in_call: Callable[[], bool] | None = None,
    rows_of_call: RowsOfCall | None = None,
    windows: WindowRun | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[Injection]:
    """Run `unet` with the temporal layers of `motion_model`; on leaving, by whatever way, the UNet is as it was.

    Only forward hooks are added, and they are removed by handle: the module tree, the state-dict keys and other
    people's hooks and patches stay untouched. In window scope "unet" this instance's `forward` is replaced too. Calls
    take k · num_frames rows, k ≥ 1, `(b f) c h w`.

    Args:
        unet: any LDM-layout UNet (ldm, sgm, Forge's, reForge's, ours).
        motion_model: modules on the device on which the UNet computes.
        num_frames: frames of the clip.
        scale: strength of the temporal branch, one number or one for each frame of the clip. Where all are 0 nothing
            is hooked: outputs are those of the bare UNet.
        moves_in_call: whether the UNet call that begins now has motion; one without is the bare UNet's, its norms and
            all. None is always.
        rows_of_call: layout of the rows where it is not entry after entry, such as A1111's with AND.
        windows: how a clip runs that is longer than the modules know; None runs it at once. In scope "attention"
            modules that can't run in windows see the whole clip.
        dtype: type in which the modules compute, and get their input; None is that of each one's first parameter.

    Raises:
        InjectionError: the UNet has no LDM layout, the channels don't fit, the clip is longer than the module knows,
            another injection is active on this UNet, or `scale` doesn't have one number for each frame. Inside the
            block: rows that are no whole number of clips, or a motion module that did not run.
    """
    modules = motion_model.site_modules()
    sites = matching_sites(unet, motion_model)
    _check_length(modules, num_frames, windows)
    rows = CallRows(num_frames, rows_of_call)
    capture = StepCapture(rows)
    strength = BranchScale(scale, rows, moves_in_call)
    injection = Injection(modules, rows, strength, capture, dtype, windows)
    if any(isinstance(getattr(hook, "__self__", None), Injection) for hook in unet._forward_pre_hooks.values()):
        raise InjectionError("This UNet already has motion modules in it. Leave the other `injected` block first.")
    with ExitStack() as stack:
        if not strength.is_zero:
            _add_hooks(unet, sites, injection, stack)
            if any(map(wants_step, modules.values())):
                _add_capture_hooks(unet, capture, stack)
            if motion_model.config.unet_norm_over_frames:
                _add_norm_hooks(unet, FrameAxisNorm(rows, lambda: injection.moves), stack)
            if windows is not None and windows.scope == "unet":
                stack.enter_context(forward_replaced(unet, injection.run_windows))
        yield injection


def _check_length(modules: Mapping[str, SiteModule], num_frames: int, windows: WindowRun | None) -> None:
    """Refuse a clip of which modules would see more frames than they know."""
    short = [module for module in modules.values() if num_frames > module.max_length]
    if windows is None and short:
        raise InjectionError(
            f"This motion module knows clips of up to {min(m.max_length for m in short)} frames, got {num_frames}. "
            "Lower the number of frames, or run the clip in windows."
        )
    if windows is not None and windows.scope == "attention" and not all(map(takes_windows, short)):
        raise InjectionError(
            f"This motion module can't run its attention in windows and knows clips of up to "
            f"{min(m.max_length for m in short)} frames, got {num_frames}. Lower the number of frames, or choose the "
            "window scope 'unet'."
        )


def matching_sites(unet: nn.Module, motion_model: MotionModel) -> tuple[InjectionSite, ...]:
    """The sites of `unet` that `motion_model` fills, checked for width.

    Raises:
        InjectionError: a module has no site or another width, or a site of the UNet other than the middle one stays
            empty.
    """
    modules = motion_model.site_modules()
    sites = {site.key: site for site in find_sites(unet)}
    missing = sorted(modules.keys() - sites.keys())
    empty = sorted(sites.keys() - modules.keys() - {"mid_block.motion_modules.0"}) * motion_model.fills_every_site
    if missing or empty:
        what = f"no place for {missing[0]}" if missing else f"nothing for {empty[0]}"
        raise InjectionError(
            f"The motion module has {len(modules)} parts, this UNet {len(sites)} places, and there is {what}. "
            "Choose a motion module of the checkpoint's family (SD1.5 with SD1.5)."
        )
    for key, module in modules.items():
        expected, got = sites[key].channels, module.channels
        if expected != got:
            raise InjectionError(
                f"{key}: the UNet has {expected} channels there, the motion module {got}. "
                "Choose a motion module of the checkpoint's family and width."
            )
    return tuple(site for key, site in sites.items() if key in modules)


def _add_hooks(unet: nn.Module, sites: tuple[InjectionSite, ...], injection: Injection, stack: ExitStack) -> None:
    stack.callback(unet.register_forward_pre_hook(injection.begin_call, with_kwargs=True).remove)
    for site in sites:

        def hook(module: nn.Module, args: Any, output: Tensor, key: str = site.key) -> Tensor:
            return injection.run_module(key, output)

        stack.callback(unet.get_submodule(site.path).register_forward_hook(hook).remove)
    stack.callback(unet.register_forward_hook(injection.end_call).remove)


def _add_capture_hooks(unet: nn.Module, capture: StepCapture, stack: ExitStack) -> None:
    """The first ResBlock gets what all of them get, label embedding included, before the first site is reached."""
    first = next(module for module in unet.get_submodule("input_blocks").modules() if is_res_block(module))
    stack.callback(capture.clear)
    stack.callback(unet.register_forward_pre_hook(capture.begin_unet, with_kwargs=True).remove)
    stack.callback(first.register_forward_pre_hook(capture.take_embedding, with_kwargs=True).remove)


def _add_norm_hooks(unet: nn.Module, norm: FrameAxisNorm, stack: ExitStack) -> None:
    """GroupNorms of all ResBlocks and the one before the output run over the frames (v1, HotShot-XL)."""
    blocks = [module for module in unet.modules() if is_res_block(module)]
    names = ("in_layers", "out_layers")
    inner = [block.get_submodule(name) for block in blocks for name in names]
    for layers in [unet.get_submodule("out"), *inner]:
        module = next(layer for layer in layers.modules() if _is_group_norm(layer))
        stack.callback(module.register_forward_pre_hook(norm.fold).remove)
        stack.callback(module.register_forward_hook(norm.unfold).remove)


def _is_group_norm(module: nn.Module) -> bool:
    return isinstance(module, torch.nn.GroupNorm) or hasattr(module, "num_groups")
