"""The side of the extension that knows the web UI: its script, its page, its models. Only imported inside a host."""

from motion.host.register import register
from motion.host.script import MotionScript

__all__ = ["MotionScript", "register"]
