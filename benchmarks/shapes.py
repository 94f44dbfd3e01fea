"""What the shapes models that come with the project can do: `python -m benchmarks.shapes [--out DIR]`.

Every clip is rendered by the public pipeline and judged by plain image analysis. Seeds are 0 to n-1, none chosen; a
seed also draws its caption. Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.shapes_clips import ClipMaker, Sampling, ShapesWeights, check_empty
from benchmarks.shapes_parts import (
    Row,
    adapter_rows,
    any_rows,
    judge_rows,
    lora_rows,
    picture_rows,
    still_rows,
    text_rows,
)
from motion.errors import MotionError
from motion.standalone import Pipeline
from motion.training.shapes_recipe import CHECKPOINT_FILE

SHIPPED = Path(__file__).resolve().parents[1] / "motion" / "standalone" / "demo"

PARTS: Mapping[str, Callable[[ClipMaker, int], Iterator[Row]]] = {
    "judge": lambda maker, count: judge_rows(count),
    "text": lambda maker, count: text_rows(maker, count, "v3"),
    "stills": still_rows,
    "text-v2": lambda maker, count: text_rows(maker, count, "v2"),
    "any": any_rows,
    "lora": lora_rows,
    "adapter": adapter_rows,
    "img2img": picture_rows,
}
"""Part -> its rows, given the number of seeds."""


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    width = max(len(row.label) for row in rows)
    lines = []
    for row in rows:
        asked = "" if row.least is None else f"  at least {_shown(row.least)}" + ("" if row.is_met else "  MISSED")
        lines.append(f"{row.label:<{width}}  {_shown(row.value):>8}{asked}")
    return "\n".join(lines)


def _shown(value: float | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3f}"


def measure(
    weights: ShapesWeights, sampling: Sampling, parts: Sequence[str], count: int, out: Path | None
) -> list[Row]:
    """All rows of `parts`.

    Raises:
        MotionError: weights are missing, or a render failed.
    """
    with tempfile.TemporaryDirectory(prefix="motion-shapes-") as data_dir:
        weights.put_loras(Path(data_dir))
        checkpoint = weights.find(CHECKPOINT_FILE)
        with Pipeline.from_files(checkpoint, precision="fp32", data_dir=data_dir) as pipeline:
            maker = ClipMaker(pipeline, weights, sampling, out)
            return [row for part in parts for row in PARTS[part](maker, count)]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--weights", type=Path, default=SHIPPED, help="folder of the shapes models; the shipped one if not given")
    add("--n", type=int, default=96, help="seeds of each part")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    add("--out", type=Path, help="new folder for every clip as PNG frames, contact sheets and captions.json")
    add("--sampler", default="Euler")
    add("--steps", type=int, default=20)
    add("--cfg", type=float, default=5.0, help="guidance scale")
    add("--denoise", type=float, default=0.75, help="denoising strength from a picture")
    found = parser.parse_args(arguments)
    if found.n < 2:
        parser.error(f"--n must be at least 2, got {found.n}")
    return found


def main() -> None:
    """Measure, print the table, then the JSON object."""
    arguments = parse()
    sampling = Sampling(arguments.sampler, arguments.steps, arguments.cfg, arguments.denoise)
    start = time.perf_counter()
    try:
        if arguments.out is not None:
            check_empty(arguments.out)
        rows = measure(ShapesWeights(arguments.weights), sampling, arguments.parts, arguments.n, arguments.out)
    except MotionError as error:
        sys.exit(str(error))
    figures = {row.key: _plain(row.value) for row in rows}
    facts = {**asdict(sampling), "n": arguments.n, "seconds": round(time.perf_counter() - start)}
    print(table(rows))
    print(json.dumps(figures | facts))


def _plain(value: float | bool) -> float | bool | None:
    if isinstance(value, bool):
        return value
    return None if math.isnan(value) else round(value, 4)


if __name__ == "__main__":
    main()
