"""Puts motion modules into a UNet and takes them out again, leaving the UNet as it was."""

from motion.injection.inject import Injection, injected
from motion.injection.sites import InjectionSite, find_sites

__all__ = ["Injection", "InjectionSite", "find_sites", "injected"]
