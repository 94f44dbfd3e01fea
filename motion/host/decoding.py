"""A clip's latents become pictures inside our `p.sample` wrapper: each is on disk at once, and Interrupt is heard.

Left to themselves, web UIs decode all frames before anything of them is written. A1111 decodes them one at a time, with
no way out where memory runs out; Forge and reForge as many at a time as memory allows, and in tiles where one is too
many. They take a list with `already_decoded = True` from `p.sample` and don't decode it again. Their own functions do
the decoding, so the decoder that was chosen (full, TAESD, approximate), the check for NaN and the retry in a wider
format stay theirs; a picture that is decoded alone is theirs to the bit.

The hires pass decodes inside `p.sample` and is left alone. So is inpainting, where extensions blend the latents in
`post_sample`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from modules import devices, shared
from torch import Tensor

from motion.host.adapter import HostAdapter
from motion.settings import MotionSettings
from motion.video.decoding import DecodePlan, decoded_in_chunks
from motion.video.early_frames import EarlyFrames

logger = logging.getLogger(__name__)


class DecodedFrames(list[Tensor]):
    """Pictures, each `3 H W`, about [-1, 1], on the CPU."""

    already_decoded = True


class FrameDecoding:
    """Decodes the clips of one request.

    Args:
        p: the host's processing object.
        settings: the request.
        host: its adapter.
        keep: makes the folder of a clip's early frames; None where there is none to keep them in.
        infotext: generation parameters of frame i.
    """

    def __init__(
        self,
        p: Any,
        settings: MotionSettings,
        host: HostAdapter,
        keep: Callable[[], EarlyFrames | None],
        infotext: Callable[[int], str],
    ) -> None:
        self._p = p
        self._settings = settings
        self._host = host
        self._keep = keep
        self._infotext = infotext

    def decode(self, samples: Any) -> Any:
        """What `p.sample` returns for these latents, `f c h w`: pictures, or what is the web UI's to decode, as it is.

        After an Interrupt between two frames the rest is missing.

        Raises:
            MotionError: a frame can't be written, or NaN where the web UI raises such an error.
        """
        if not isinstance(samples, Tensor) or getattr(self._p, "nmask", None) is not None:
            return samples
        devices.test_for_nans(samples, "unet")
        method = getattr(shared.opts, "sd_vae_decode_method", "Full")
        if method != "Full":
            self._p.extra_generation_params["VAE Decoder"] = method
        size = (samples.shape[-2], samples.shape[-1])
        plan = DecodePlan.fitting(
            self._settings.decode_chunk_size or self._host.frames_decoded_at_once,
            size,
            devices.dtype_vae.itemsize,
            self._host.decoder_room(),
        )
        before = shared.state.textinfo
        early = self._keep()
        try:
            with devices.without_autocast():  # in which the web UI calls `p.sample`, and not its decoder
                return self._decoded(samples, plan, early)
        except Exception:
            if early is not None and len(early):
                logger.warning("Motion: %d frames that were decoded are in %s", len(early), early.folder)
            elif early is not None:
                early.discard()
            raise
        finally:
            shared.state.textinfo = before

    def _decoded(self, samples: Tensor, plan: DecodePlan, early: EarlyFrames | None) -> DecodedFrames:
        was_interrupted = self._host.interrupted()  # then the web UI still decodes all that was sampled
        frames = DecodedFrames()
        shared.state.textinfo = f"Motion: decoding {len(samples)} frames"
        for pictures in decoded_in_chunks(samples, self._host.decode, plan):
            for picture in pictures:
                if early is not None:
                    early.add(picture, self._infotext(len(frames)))
                frames.append(picture)
            shared.state.textinfo = f"Motion: decoded {len(frames)} of {len(samples)} frames"
            if self._host.interrupted() and not was_interrupted:
                break
        return frames
