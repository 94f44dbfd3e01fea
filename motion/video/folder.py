"""The output folder: checked before sampling, names that never collide, files that get their name when whole."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from pathlib import Path

from motion.errors import OutputError

_NUMBER = re.compile(r"(\d{5,7})-")
_UNSAFE_IN_NAMES = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
_MAX_STEM_BYTES = 200
_MAX_CLAIMS = 1000

_REMEDIES = {
    errno.ENOSPC: "Free some space or choose an output folder on another disk.",
    errno.EDQUOT: "Free some space of your quota or choose an output folder on another disk.",
    errno.EFBIG: "Raise the limit on file sizes or choose an output folder on another disk.",
    errno.EACCES: "Give yourself write permission there or choose another output folder.",
    errno.EPERM: "Give yourself write permission there or choose another output folder.",
    errno.EROFS: "The disk is read-only: choose another output folder.",
    errno.ENOTDIR: "A file stands where a folder must be: rename it or choose another output folder.",
    errno.EEXIST: "Something of that name is there already: rename it or choose another output folder.",
    errno.ENAMETOOLONG: "Choose a shorter output folder.",
}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_INSUFFICIENT_STORAGE = 507


def output_error(error: OSError, expected: str) -> OutputError:
    """`error` of the operating system as an OutputError: what was `expected`, what came, what to do."""
    remedy = _REMEDIES.get(error.errno or 0, "Check the disk or choose another output folder.")
    status_code = _INSUFFICIENT_STORAGE if error.errno in _DISK_FULL else 422
    return OutputError(f"{expected}, got: {error.strerror or error}. {remedy}", status_code=status_code)


def check_output_folder(folder: str | Path, needed_bytes: int = 0) -> None:
    """Make `folder` if it is missing and see that a clip can be written there. Meant to run before sampling.

    A probe file is really written and removed: permission bits say nothing to root or about a read-only disk.

    Args:
        folder: where clips will go.
        needed_bytes: free space that the clip will need, for instance from `estimate_clip_bytes`.

    Raises:
        OutputError: not a folder, not writable, or too little free space.
    """
    folder = Path(folder)
    probe = folder / f".motion-probe-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("xb") as file:
                file.write(b"probe")
        finally:
            probe.unlink(missing_ok=True)
        free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        raise output_error(error, f"The output folder {folder} must be a folder that can be written to") from error
    if free_bytes < needed_bytes:
        raise OutputError(
            f"The output folder {folder} must have {needed_bytes / 1e6:,.0f} MB free for this clip, got "
            f"{free_bytes / 1e6:,.0f} MB. {_REMEDIES[errno.ENOSPC]}",
            status_code=_INSUFFICIENT_STORAGE,
        )


def estimate_clip_bytes(num_frames: int, width: int, height: int) -> int:
    """Disk space that a clip needs while it is written, cautiously: PNG frames and every encoded file, 4 bytes a pixel.

    Photographic 8-bit frames take about 2 bytes a pixel as PNG, 1 as GIF and 0.3 as MP4.
    """
    return 4 * num_frames * width * height + 64 * 1024


def claim_name(folder: Path, stem: str, *, numbered: bool = True) -> str:
    """Reserve a clip name in `folder` by making the folder of that name, which will hold the frames.

    `mkdir` either makes the folder or fails, so of two processes one gets the name. The claim lasts as long as the
    folder, and a clip's files are published before its folder goes; hence the second look for files of that name.

    Args:
        folder: output folder; made if it is missing.
        stem: last part of the name, such as the seed.
        numbered: put a running number in front, `00012-<stem>`, as web UIs do; otherwise the name is `stem`.

    Returns:
        The name, without a suffix.

    Raises:
        OutputError: `stem` is no file name, is taken (when not `numbered`), or the folder can't be written to.
    """
    check_stem(stem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_MAX_CLAIMS):
            name = f"{_next_number(folder):05d}-{stem}" if numbered else stem
            if _claimed(folder, name):
                return name
            if not numbered:
                break
    except OSError as error:
        raise output_error(error, f"The output folder {folder} must be a folder that can be written to") from error
    raise OutputError(f"The clip's name must be free, got {folder / name}, which is taken. Choose another name.")


def check_stem(stem: str) -> None:
    """Refuse a `stem` that is not a plain file name on every system."""
    fits = 0 < len(os.fsencode(stem)) <= _MAX_STEM_BYTES
    if not fits or _UNSAFE_IN_NAMES.search(stem) or stem.startswith(".") or stem.endswith((".", " ")):
        raise OutputError(
            f"A clip's name must be a plain file name of 1 to {_MAX_STEM_BYTES} bytes, without folders and without "
            f'any of <>:"|?*, got {stem[:80]!r}. Use letters, digits and dashes.'
        )


def publish(unfinished: Path, final: Path) -> None:
    """Give a whole file its final name on the same disk, without ever replacing another file.

    Raises:
        FileExistsError: something has the final name; `unfinished` stays.
    """
    try:
        os.link(unfinished, final)  # unlike a rename, fails on every system when the name is taken
    except FileExistsError:
        raise
    except OSError:
        # FAT and some network disks have no hard links. Our own writers are kept away by the claimed folder.
        if final.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final)) from None
        unfinished.rename(final)
    else:
        unfinished.unlink()


def _next_number(folder: Path) -> int:
    matches = [_NUMBER.match(name) for name in os.listdir(folder)]
    return max((int(match[1]) for match in matches if match), default=-1) + 1


def _claimed(folder: Path, name: str) -> bool:
    claim = folder / name
    try:
        claim.mkdir()
    except FileExistsError:
        return False
    if any(other.startswith(f"{name}.") for other in os.listdir(folder)):
        claim.rmdir()
        return False
    return True
