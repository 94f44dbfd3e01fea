"""Errors that users see. Each says what was expected, what came and what to do."""

from __future__ import annotations

from pathlib import Path


class MotionError(Exception):
    """Base of every error that this extension raises on purpose.

    A web UI's API answers with the exception's *instance* attributes `status_code` and `detail` (A1111 1.10.1 reads
    them with `vars(e)`), so they are set here and not on the class.

    Attributes:
        status_code: HTTP status for the API, 4xx for a fault of the request.
        detail: the message again, for the API's answer.
    """

    def __init__(self, message: str, *, status_code: int = 422) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.detail = message


class SettingsError(MotionError):
    """A field of the request is unknown, of the wrong type, out of range, or does not go with another."""


class CheckpointError(MotionError):
    """A weight file can't be used: its path, the reason and the remedy are in the message."""

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason} {remedy}")
        self.path = str(path)
        self.reason = reason
        self.remedy = remedy


class InjectionError(MotionError):
    """The motion module and the UNet, or the rows of a UNet call and the frames, don't fit together."""


class OutputError(MotionError):
    """Frames or a clip can't be written."""
