"""The embedded host: a small web UI of our own, with the part of A1111's API that extensions use."""
