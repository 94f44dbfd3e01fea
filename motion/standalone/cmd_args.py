"""Command line of the host, with A1111's flag names: `modules.cmd_args`."""

from __future__ import annotations

import argparse

_SWITCHES = (
    ("no-half", "compute in float32"),
    ("no-half-vae", "decode in float32"),
    ("disable-nan-check", "do not look for NaNs in results"),
    ("no-prompt-history", "do not keep the last infotext in params.txt"),
    ("hide-ui-dir-config", "keep folders out of the page"),
    ("listen", "serve on all interfaces"),
    ("api", "serve the API; it always is"),
    ("nowebui", "serve the API only"),
    ("share", "not supported; the name is part of the API"),
    ("xformers", "not used; the name is part of the API"),
    ("lowvram", "not used; the name is part of the API"),
    ("medvram", "not used; the name is part of the API"),
    ("medvram-sdxl", "not used; the name is part of the API"),
    ("freeze-settings", "not used; the name is part of the API"),
    ("disable-all-extensions", "load no extension from the extensions folder"),
    ("disable-extra-extensions", "load no extension from the extensions folder"),
    ("enable-insecure-extension-access", "not used; the name is part of the API"),
)
_VALUES: tuple[tuple[str, type, str | int | None, str], ...] = (
    ("data-dir", str, ".", "folder of models, outputs and settings"),
    ("models-dir", str, None, "folder of models; <data-dir>/models if not given"),
    ("ckpt", str, None, "checkpoint to load first"),
    ("ckpt-dir", str, None, "one more folder of checkpoints"),
    ("lora-dir", str, None, "folder of LoRA files; <models-dir>/Lora if not given"),
    ("vae-dir", str, None, "not used; the name is part of the API"),
    ("device-id", str, None, "CUDA device"),
    ("server-name", str, None, "address to serve on"),
    ("port", int, None, "port to serve on"),
    ("subpath", str, None, "not used; the name is part of the API"),
    ("ui-settings-file", str, None, "settings file; <data-dir>/config.json if not given"),
    ("styles-file", str, None, "styles file; <data-dir>/styles.csv if not given"),
)


def create_parser() -> argparse.ArgumentParser:
    """Parser of the flags that this host or an extension reads."""
    parser = argparse.ArgumentParser(prog="motion", add_help=False, allow_abbrev=False)
    for flag, text in _SWITCHES:
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    for flag, kind, default, text in _VALUES:
        parser.add_argument(f"--{flag}", type=kind, default=default, help=text)
    parser.add_argument("--precision", choices=["full", "half", "autocast"], default="autocast", help="number format")
    parser.add_argument("--use-cpu", nargs="+", default=[], type=str.lower, help="'all' or 'sd': compute on the CPU")
    return parser
