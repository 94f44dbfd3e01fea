"""Random numbers of a training step, drawn anew from seed and step: a resumed run needs no state of generators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class StepRandom:
    """Two generators of one part of one step; the same for the same three numbers on every machine.

    Attributes:
        tensors: for torch, on the CPU.
        choices: for numpy.
    """

    tensors: torch.Generator
    choices: np.random.Generator

    @classmethod
    def of(cls, seed: int, step: int, part: int = 0) -> StepRandom:
        """The generators of part `part` (of a batch that is run in parts) of step `step`."""
        for_torch, for_numpy = np.random.SeedSequence([seed, step, part]).spawn(2)
        tensors = torch.Generator().manual_seed(int(for_torch.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        return cls(tensors, np.random.Generator(np.random.PCG64(for_numpy)))
