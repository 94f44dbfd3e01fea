"""Clips on disk: MP4, GIF and PNG frames, with their infotext inside. Importing this imports no codec."""

from motion.video.folder import check_output_folder, estimate_clip_bytes
from motion.video.formats import CLIP_FORMATS, ClipFormat, check_formats
from motion.video.frames import ClipSource, Frame, StoredFrames, contact_sheet
from motion.video.metadata import read_infotext
from motion.video.writer import ClipWriter, IncompleteClipError, SavedClip, save_clip

__all__ = [
    "CLIP_FORMATS",
    "ClipFormat",
    "ClipSource",
    "ClipWriter",
    "Frame",
    "IncompleteClipError",
    "SavedClip",
    "StoredFrames",
    "check_formats",
    "check_output_folder",
    "contact_sheet",
    "estimate_clip_bytes",
    "read_infotext",
    "save_clip",
]
