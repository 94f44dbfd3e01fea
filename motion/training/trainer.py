"""The training loop: AdamW, an average of the weights, checks, states to resume from. Deterministic by seed.

A run that was killed goes on from its last state to the same weights: everything random comes from seed and step
(`StepRandom`), and a state holds weights, optimiser and average in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from motion.training.gradient_checks import GradientChecks, TrainingError, anomaly_found, describe_silent
from motion.training.interrupts import interrupt_deferred
from motion.training.loss_curve import draw_loss_curve
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.run_state import pack_state, unpack_state
from motion.training.settings import TrainerSettings

_FREE_TO_CHANGE = ("save_every", "sample_every", "anomaly")
_MAX_SKIPPED = 20
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingTask(Protocol):
    """What is trained: parameters in float32, a loss, and what comes of them."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Name -> parameter, all that are trained, in a fixed order."""
        ...

    def applied(self) -> AbstractContextManager[Any]:
        """What must be in the networks from the loss to the end of its backward pass, which may run them again."""
        ...

    def loss(self, random: StepRandom) -> Tensor:
        """Loss of one part of a batch, inside `applied()`: a scalar with a gradient."""
        ...

    def sample_sheet(self) -> Image.Image | None:
        """What the present weights make, to look at."""
        ...

    def export(self, folder: RunFolder) -> list[Path]:
        """Write the present weights as files that can be used."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """What the run is about, in JSON; a state of another is not resumed."""
        ...


@dataclass(frozen=True)
class Progress:
    """One finished step.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: of this step.
        grad_norm: before clipping.
        learning_rate: of this step.
        seconds_per_step: mean over this session.
        note: something to tell the user; empty mostly.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    learning_rate: float
    seconds_per_step: float
    note: str = ""


OnProgress = Callable[[Progress], None]


class Trainer:
    """Runs one task in one folder.

    Args:
        task: what is trained.
        settings: how.
        folder: states, curve and samples go there; a run that was begun there is resumed.
        device: where the task computes.
        on_progress: called after each step.

    Raises:
        TrainingError: the folder holds a run of something else.
    """

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainerSettings,
        folder: RunFolder,
        *,
        device: torch.device | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._task = task
        self._settings = settings
        self._folder = folder
        self._device = device or torch.device("cpu")
        self._on_progress = on_progress or (lambda progress: None)
        self._parameters = dict(task.parameters())
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=settings.learning_rate,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            foreach=True,
        )
        self._average = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._scaler = _grad_scaler(self._device, enabled=settings.precision == "fp16")
        self._checks = GradientChecks(self._parameters)
        self._losses: list[float] = []
        self._skipped = 0
        self.step = 0
        self._resume()

    def run(self) -> bool:
        """Train to the end, or until the folder's stop file appears or Ctrl-C is pressed.

        Returns:
            True when all steps are done and the files are exported; False when stopped, with the state saved.

        Raises:
            TrainingError: gradients went wrong, or the disk is full. The last saved state is kept.
        """
        began, first = time.monotonic(), self.step
        self._folder.stop_file.unlink(missing_ok=True)
        try:
            while self.step < self._settings.steps:
                norm, note = self._train_step()
                seconds = (time.monotonic() - began) / (self.step - first)
                rate = self._settings.rate_at(self.step - 1)
                self._on_progress(
                    Progress(self.step, self._settings.steps, self._losses[-1], norm, rate, seconds, note)
                )
                self._save_what_is_due()
                if self._folder.stop_file.exists():
                    self._save_state()
                    return False
        except KeyboardInterrupt:
            self._save_state()
            raise
        self._finish()
        return True

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The task with the averaged weights for the length of a `with` block."""
        if not self._settings.ema_decay:
            yield
            return
        trained = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        try:
            with interrupt_deferred():
                self._put(self._average)
            yield
        finally:
            with interrupt_deferred():
                self._put(trained)

    def _train_step(self) -> tuple[float, str]:
        """(gradient norm, note) of one optimiser step. An interrupt finds the run before it or after it."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.rate_at(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss = sum(self._backward(part) for part in range(self._settings.accumulation))
        with interrupt_deferred():
            norm, silent = self._update()
            self._losses.append(loss)
            self.step += 1
        return norm, describe_silent(silent, self.step) if silent else ""

    def _backward(self, part: int) -> float:
        """The share in the loss of one part of the batch, whose gradient is added."""
        settings = self._settings
        random = StepRandom.of(settings.seed, self.step, part)
        with self._task.applied(), torch.autograd.set_detect_anomaly(settings.anomaly, check_nan=True):
            with self._autocast():
                loss = self._task.loss(random) / settings.accumulation
            try:
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                if settings.anomaly and "nan" in str(error):
                    raise anomaly_found(error, self.step + 1) from error
                raise
        return loss.item()

    def _update(self) -> tuple[float, list[str]]:
        """(gradient norm, newly silent parameters); moves weights and average."""
        self._scaler.unscale_(self._optimizer)
        if self._skips_step():
            return float("nan"), []
        norm, silent = self._checks.check(self.step + 1)
        nn.utils.clip_grad_norm_(self._parameters.values(), self._settings.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._update_average()
        return norm, silent

    def _skips_step(self) -> bool:
        """fp16 only: gradients beyond its range are left out, and the loss is scaled less from then on."""
        if not self._scaler.is_enabled():
            return False
        gradients = [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]
        if all(bool(torch.isfinite(norm)) for norm in torch._foreach_norm(gradients)):
            self._skipped = 0
            return False
        self._skipped += 1
        if self._skipped > _MAX_SKIPPED:
            return False  # the checks name what is wrong
        self._scaler.step(self._optimizer)  # sees the infinity and leaves the weights alone
        self._scaler.update()
        return True

    def _autocast(self) -> Any:
        dtype = _DTYPES.get(self._settings.precision)
        return torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = self._settings.ema_at(self.step)
        if self._settings.ema_decay:
            torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1.0 - decay)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])

    def _save_what_is_due(self) -> None:
        settings = self._settings
        if settings.sample_every and self.step % settings.sample_every == 0:
            self._save_sheet()
        if self.step % settings.save_every == 0 and self.step < settings.steps:
            self._save_state()

    def _save_sheet(self) -> None:
        with self.averaged(), torch.no_grad():
            sheet = self._task.sample_sheet()
        if sheet is not None:
            self._folder.save_image(f"samples/step-{self.step:06d}.png", sheet)
        self._folder.save_image("loss.png", draw_loss_curve(self._losses))

    def _finish(self) -> None:
        self._save_state()
        self._folder.save_image("loss.png", draw_loss_curve(self._losses))
        with self.averaged():
            self._task.export(self._folder)

    def _save_state(self) -> None:
        tensors = pack_state(self._parameters, self._average, self._optimizer, self._losses)
        self._folder.save_state(self.step, tensors, {**self._facts(), "scaler": self._scaler.state_dict()})

    def _facts(self) -> dict[str, Any]:
        return {"task": dict(self._task.describe()), "settings": self._settings.describe()}

    def _resume(self) -> None:
        found = self._folder.load_state()
        if found is None:
            return
        step, tensors, facts = found
        self._check_same_run(facts)
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(facts["scaler"])
        self._losses = unpack_state(tensors, self._parameters, self._average, self._optimizer)
        self.step = step

    def _check_same_run(self, facts: Mapping[str, Any]) -> None:
        for kind, now in self._facts().items():
            before = facts.get(kind, {})
            differing = _differing(before, now)
            if differing:
                name = differing[0]
                raise TrainingError(
                    f"The folder {self._folder.path} holds a run with `{name}` {before.get(name)!r}, this one has "
                    f"{now.get(name)!r}. Pass the same settings to resume it, or choose another folder."
                )


def _grad_scaler(device: torch.device, *, enabled: bool) -> torch.amp.GradScaler:
    """Torch 2.1 and 2.2, which web UIs ship, know CUDA's only."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    names = sorted(before.keys() | now.keys())
    return [name for name in names if name not in _FREE_TO_CHANGE and before.get(name) != now.get(name)]
