"""Checks that every host must pass, over its HTTP API. They run on the embedded host and on installed web UIs."""
