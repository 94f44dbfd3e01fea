"""A host as its API shows it."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

REQUEST_SECONDS = 240
NEVER_PROXIED = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class HostUnreachableError(Exception):
    """The host does not answer, or not on this address."""


@dataclass(frozen=True)
class Clip:
    """A decoded MP4 or GIF.

    Attributes:
        frames: uint8 [f, h, w, 3].
        fps: frames a second as the file says.
        infotext: generation parameters inside the file.
    """

    frames: np.ndarray
    fps: Fraction
    infotext: str


@dataclass(frozen=True)
class Answer:
    """What the host answered.

    Attributes:
        status: HTTP status.
        body: decoded JSON.
    """

    status: int
    body: Any

    @property
    def files(self) -> list[bytes]:
        """Everything in `images`, decoded from base64."""
        assert self.status == 200, f"expected 200, got {self.status}: {self.body}"
        return [base64.b64decode(text) for text in self.body["images"]]

    @property
    def info(self) -> dict[str, Any]:
        """The generation's own account."""
        return json.loads(self.body["info"])

    @property
    def message(self) -> str:
        """The error's text; Forge calls it `message` where the others say `errors`."""
        body = self.body if isinstance(self.body, dict) else {}
        return str(body.get("detail") or body.get("errors") or body.get("message") or "")

    @property
    def mp4s(self) -> list[bytes]:
        """The files that are MP4."""
        return [file for file in self.files if file[4:8] == b"ftyp"]

    @property
    def gifs(self) -> list[bytes]:
        """The files that are GIF."""
        return [file for file in self.files if file.startswith(b"GIF8")]

    @property
    def pngs(self) -> list[bytes]:
        """The files that are PNG: stills, or a clip's frames."""
        return [file for file in self.files if file.startswith(b"\x89PNG")]

    @property
    def pixels(self) -> np.ndarray:
        """The PNGs' pixels: uint8 [n, h, w, 3]."""
        return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in self.pngs])


class Host:
    """One running host.

    Args:
        address: such as "http://127.0.0.1:7860".
        kind: "embedded", "a1111", or "forge" for Forge and reForge.
        data_dir: its folder of models and outputs.
        pid: its process.
        log: file with its output.
    """

    def __init__(self, address: str, kind: str, data_dir: Path, pid: int, log: Path) -> None:
        self.address = address
        self.kind = kind
        self.data_dir = data_dir
        self.pid = pid
        self.log = log
        self.start_seconds = 0.0
        self.kept_frames: dict[str, np.ndarray] = {}

    def get(self, path: str, *, timeout: float = 60) -> Any:
        """JSON of a GET that must succeed."""
        answer = self._call(path, None, timeout)
        if answer.status != 200:
            raise HostUnreachableError(f"{path}: {answer.status} {answer.body}")
        return answer.body

    def post(self, path: str, payload: Any = None, *, timeout: float = REQUEST_SECONDS) -> Answer:
        """Any answer to a POST."""
        return self._call(path, {} if payload is None else payload, timeout)

    def txt2img(self, *, motion: dict | None = None, probe: dict | None = None, **fields: Any) -> Answer:
        """A small generation; `motion` and `probe` are the arguments of the two scripts."""
        if self.kind == "forge" and fields.get("enable_hr"):  # Forge has no default for it over the API, and raises
            fields["hr_additional_modules"] = ["Use same choices"]
        return self.post("/sdapi/v1/txt2img", _request(motion, probe, fields))

    def img2img(self, image: bytes, *, motion: dict | None = None, probe: dict | None = None, **fields: Any) -> Answer:
        """A small generation from the picture file `image`."""
        encoded = base64.b64encode(image).decode("ascii")
        return self.post("/sdapi/v1/img2img", {**_request(motion, probe, fields), "init_images": [encoded]})

    def clip(self, *, module: str = "v2", frames: int = 4, motion: dict | None = None, **fields: Any) -> Answer:
        """A small clip over txt2img, recorded by the probe; `motion` holds further arguments."""
        return self.txt2img(**_clip_fields(module, frames, motion, fields))

    def clip_from(
        self, image: bytes, *, module: str = "v2", frames: int = 4, motion: dict | None = None, **fields: Any
    ) -> Answer:
        """The same over img2img."""
        return self.img2img(image, **_clip_fields(module, frames, motion, fields))

    def clip_in_background(self, **fields: Any) -> tuple[threading.Thread, list[Answer]]:
        """A `clip` that runs in a thread, and the list that receives its answer."""
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(self.clip(**fields)))
        thread.start()
        return thread, answers

    def record(self) -> dict[str, Any]:
        """What the probe saw in the last generation that asked it to record."""
        return self.get("/contract/record")

    def decoded(self) -> np.ndarray:
        """The last recorded generation's images as the VAE gave them: float32 [n, 3, h, w] in 0..1."""
        return np.load(io.BytesIO(base64.b64decode(self.get("/contract/decoded")["npy"])))

    def keep_frames(self, name: str, frames: np.ndarray) -> None:
        """Remember frames (uint8 [f, h, w, 3]) for the report's contact sheet."""
        self.kept_frames[name] = frames

    def written_files(self) -> set[str]:
        """Everything below the output folder."""
        outputs = self.data_dir / "outputs"
        return {str(path.relative_to(outputs)) for path in outputs.rglob("*") if path.is_file()}

    def peak_memory_bytes(self) -> int | None:
        """Most memory that the process ever held; None where the system doesn't say."""
        status = Path(f"/proc/{self.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)

    def _call(self, path: str, payload: Any, timeout: float) -> Answer:
        data = None if payload is None else json.dumps(payload).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with NEVER_PROXIED.open(request, timeout=timeout) as response:
                return Answer(response.status, json.load(response))
        except urllib.error.HTTPError as error:
            return Answer(error.code, _json_or_text(error.read()))
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            raise HostUnreachableError(f"{path}: {error}") from error


def _request(motion: dict | None, probe: dict | None, fields: dict[str, Any]) -> dict[str, Any]:
    scripts = {name: {"args": [args]} for name, args in (("Motion", motion), ("Contract probe", probe)) if args}
    small = {"prompt": "a lighthouse", "seed": 1, "steps": 2, "width": 64, "height": 64, "sampler_name": "Euler"}
    return {**small, "alwayson_scripts": scripts, **fields}


def _clip_fields(module: str, frames: int, motion: dict | None, fields: dict[str, Any]) -> dict[str, Any]:
    chosen = {"enabled": True, "motion_module": module, "num_frames": frames, "formats": ["MP4", "PNG"]}
    probe = {"record": True, **fields.pop("probe", {})}
    return {"motion": {**chosen, **(motion or {})}, "probe": probe, **fields}


def _json_or_text(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", errors="replace")


def decode_mp4(data: bytes) -> Clip:
    """Frames, rate and infotext of an MP4."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return Clip(frames, Fraction(stream.average_rate), container.metadata.get("comment", ""))


def decode_gif(data: bytes) -> Clip:
    """Frames, rate (hundredths of a second, averaged) and infotext of a GIF."""
    frames, milliseconds = [], 0
    with Image.open(io.BytesIO(data)) as image:
        comment = image.info.get("comment", b"").decode("utf-8")
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            milliseconds += image.info["duration"]
    return Clip(np.stack(frames), Fraction(1000 * len(frames), milliseconds), comment)
