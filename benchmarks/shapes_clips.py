"""Clips of the shapes models for `benchmarks.shapes`: rendered by the public pipeline, and kept where that is asked."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from motion.errors import CheckpointError, OutputError
from motion.standalone import Pipeline, RenderSettings
from motion.training import shapes_recipe as recipe
from motion.training.shapes import SIZE, parse_caption, render, scene_of, scene_rng
from motion.video import contact_sheet

Frames = npt.NDArray[np.uint8]

SHEET_CLIPS, SHEET_FRAMES = 24, 8
_PICTURE_SEED = 9004


@dataclass(frozen=True)
class ShapesWeights:
    """The shapes models' files in one folder or in folders below it.

    Attributes:
        folder: as `python -m motion train shapes` leaves it, or the shipped one.
    """

    folder: Path

    def find(self, name: str) -> Path:
        """The file of this name.

        Raises:
            CheckpointError: there is none, or there are several.
        """
        found = sorted(self.folder.rglob(name))
        if len(found) != 1:
            what = f"{len(found)} files are" if found else "no file is"
            raise CheckpointError(
                self.folder, f"one file {name} is needed there, {what} there.", "Pass the folder of the shapes models."
            )
        return found[0]

    def module(self, name: str) -> Path:
        """The motion module "v2" or "v3"."""
        return self.find({"v2": recipe.MODULE_V2_FILE, "v3": recipe.MODULE_V3_FILE}[name])

    def put_loras(self, data_dir: Path) -> None:
        """Copy the motion LoRAs to where a host looks for them."""
        folder = data_dir / "models" / "Lora"
        folder.mkdir(parents=True)
        for name in recipe.LORA_CAMERAS:
            for path in self.folder.rglob(f"{recipe.NAME}-{name}.safetensors"):
                shutil.copyfile(path, folder / path.name)


@dataclass(frozen=True)
class Sampling:
    """How every clip is sampled, under the names of RenderSettings."""

    sampler: str
    steps: int
    cfg_scale: float
    denoising_strength: float


@dataclass(frozen=True)
class Case:
    """One clip to be made.

    Attributes:
        group: what it belongs to; names a folder.
        seed: of the noise.
        caption: the prompt.
        module: "v2", "v3", or "" for stills without a module.
        loras: tags of motion LoRAs.
        adapter: strength of the domain adapter.
        from_picture: start from the first frame of a world clip with this caption.
    """

    group: str
    seed: int
    caption: str
    module: str = "v3"
    loras: str = ""
    adapter: float = 0.0
    from_picture: bool = False

    @property
    def picture(self) -> Frames | None:
        """The picture to start from, h w c, drawn from the seed."""
        if not self.from_picture:
            return None
        return render(scene_of(parse_caption(self.caption), scene_rng(_PICTURE_SEED, self.seed)))[0]


class ClipMaker:
    """Renders cases, each only once.

    Args:
        pipeline: of the checkpoint; its host has the motion LoRAs.
        weights: where modules and adapter are.
        sampling: of all clips.
        out: folder for frames, contact sheets and captions.json, or None.
    """

    def __init__(self, pipeline: Pipeline, weights: ShapesWeights, sampling: Sampling, out: Path | None = None) -> None:
        self._pipeline, self._weights, self._sampling, self._out = pipeline, weights, sampling, out
        self._made: dict[Case, Frames] = {}
        self._entries: list[dict[str, Any]] = []

    def clips(self, cases: Iterable[Case]) -> list[Frames]:
        """The clips of `cases`, f h w c each."""
        cases = list(cases)
        new = [case for case in cases if case not in self._made]
        start = time.perf_counter()
        for case in new:
            self._made[case] = self._render(case)
        if new:
            seconds = time.perf_counter() - start
            print(f"{new[0].group}: {len(new)} clips in {seconds:.0f} s", file=sys.stderr, flush=True)
            self._keep(new)
        return [self._made[case] for case in cases]

    def _render(self, case: Case) -> Frames:
        sampling = self._sampling
        settings = RenderSettings(
            prompt=case.caption,
            seed=case.seed,
            sampler=sampling.sampler,
            steps=sampling.steps,
            cfg_scale=sampling.cfg_scale,
            width=SIZE,
            height=SIZE,
            init_image=case.picture,
            denoising_strength=sampling.denoising_strength,
            motion=self._motion(case),
        )
        return self._pipeline(settings).frames

    def _motion(self, case: Case) -> dict[str, Any]:
        """Settings of the clip. Scale 0 leaves the module out to the bit; then the schedule is the checkpoint's too."""
        motion: dict[str, Any] = {"num_frames": recipe.NUM_FRAMES, "motion_loras": case.loras}
        motion["motion_module"] = str(self._weights.module(case.module or "v3"))
        if not case.module:
            motion |= {"motion_scale": 0.0, "beta_schedule": "host"}
        if case.adapter:
            adapter = str(self._weights.find(recipe.ADAPTER_FILE))
            motion |= {"domain_adapter": adapter, "domain_adapter_strength": case.adapter}
        return motion

    def _keep(self, cases: Sequence[Case]) -> None:
        if self._out is None:
            return
        for case in cases:
            folder = self._out / case.group / f"{case.seed:04d}"
            folder.mkdir(parents=True)
            for index, frame in enumerate(self._made[case]):
                Image.fromarray(frame).save(folder / f"{index:02d}.png")
            self._entries.append(
                {
                    "folder": folder.relative_to(self._out).as_posix(),
                    "caption": case.caption,
                    "seed": case.seed,
                    "module": case.module,
                    "loras": case.loras,
                    "adapter": case.adapter,
                    "from_picture": case.from_picture,
                }
            )
            if (picture := case.picture) is not None:
                Image.fromarray(picture).save(folder / "start.png")
        chosen = np.linspace(0, recipe.NUM_FRAMES - 1, SHEET_FRAMES).round().astype(int)
        shown = [self._made[case][index] for case in cases[:SHEET_CLIPS] for index in chosen]
        contact_sheet(shown, columns=SHEET_FRAMES).save(self._out / f"{cases[0].group}.png")
        (self._out / "captions.json").write_text(json.dumps(self._entries, indent=1), encoding="utf-8")


def check_empty(folder: Path) -> None:
    """Make a folder for the clips.

    Raises:
        OutputError: it holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"The clips need a new or an empty folder, {folder} is not. Choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
