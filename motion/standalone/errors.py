"""Reports of exceptions that the host swallows: `modules.errors`."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

from motion.standalone import host_state

logger = logging.getLogger(__name__)


def record_exception() -> None:
    """Remember the exception that is being handled, for `get_exceptions`."""
    _, error, trace = sys.exc_info()
    if error is None or not host_state.is_running():
        return
    frames = [[f"{entry.filename}, line {entry.lineno}, {entry.name}", entry.line] for entry in _frames(trace)]
    host_state.current().exception_records.append({"exception": str(error), "traceback": frames})


def _frames(trace: Any) -> traceback.StackSummary:
    return traceback.extract_tb(trace)


def get_exceptions() -> list[dict[str, Any]]:
    """The last five recorded exceptions, newest first."""
    return list(reversed(host_state.current().exception_records))


def report(message: str, *, exc_info: bool = False) -> None:
    """Log `message` as an error, with the traceback of the exception being handled if `exc_info`."""
    record_exception()
    logger.error(message, exc_info=exc_info)


def display(e: Exception, task: str, *, full_traceback: bool = False) -> None:
    """Log that `task` failed with `e`; with `full_traceback` also the frames that led here."""
    record_exception()
    stack = "".join(traceback.format_stack()[:-1]) if full_traceback else ""
    logger.error("%s: %s\n%s%s", task or "error", type(e).__name__, stack, "".join(traceback.format_exception(e)))


display_once = display


def print_error_explanation(message: str) -> None:
    """Log a longer explanation for the user."""
    record_exception()
    logger.error(message)


def run(code: Callable[[], Any], task: str) -> None:
    """Call `code`; a failure is logged, not raised."""
    try:
        code()
    except Exception as error:
        display(error, task)
