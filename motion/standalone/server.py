"""`python -m motion serve`: the page and the API on one port."""

from __future__ import annotations

import argparse
import inspect
import os
import socket
import sys
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from motion.errors import SettingsError
from motion.models.precision import choose_precision
from motion.standalone import devices, namespace, page, paths, script_callbacks, scripts, sd_models
from motion.standalone.api import add_api
from motion.standalone.demo_files import copy_demo_files
from motion.standalone.local_page import LocalPage
from motion.standalone.pipeline import EXTENSION_FOLDER
from motion.standalone.request_guard import RequestGuard

_CONCURRENT_EVENTS = 8
"""The page's small events go on while a job runs; jobs themselves wait for one another."""


def serve(arguments: argparse.Namespace) -> None:
    """Serve until interrupted; a data folder without a checkpoint gets the small models of the demo.

    Args:
        arguments: of the command line: checkpoint_dir, data_dir, host, port, precision.

    Raises:
        MotionError: the address or the port can't be used, the precision is unknown, or the data folder can't be
            written to.
    """
    check_address(arguments.host, arguments.port)
    with namespace.installed(_host_arguments(arguments), [EXTENSION_FOLDER]):
        devices.configure(choose_precision(arguments.precision))
        offer_demo_models()
        app = create_app(arguments.host)
        sys.stdout.write(f"Running on http://{_address(arguments.host, arguments.port)}\n")
        sys.stdout.flush()
        uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")


def offer_demo_models() -> None:
    """Put the shipped models into the data folder where it has no checkpoint, and say so.

    Raises:
        OutputError: it can't be written to.
    """
    sd_models.list_models()
    if not sd_models.checkpoint_tiles():
        checkpoint, _ = copy_demo_files(Path(paths.data_path))
        sys.stdout.write(f"No checkpoint was found: the demo's small models are now in {checkpoint.parents[1]}\n")


def create_app(host: str = "127.0.0.1") -> FastAPI:
    """Page and API of the running host, its scripts loaded anew.

    Args:
        host: address or name that the app will be served on; requests for other names are refused.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # also for Blocks that extensions make
    scripts.load_scripts()
    sd_models.list_models()
    blocks = page.build_page()
    app = FastAPI(title=page.TITLE)
    add_api(app)
    script_callbacks.app_started_callback(blocks, app)  # before the page, which takes every other address
    _mount(app, blocks)
    app.add_middleware(LocalPage)
    app.add_middleware(RequestGuard, host=host)  # the last one added is asked first
    return app


def _mount(app: FastAPI, blocks: Any) -> None:
    """Serve `blocks` at the root, in Gradio 4's way or in Gradio 3's."""
    if "allowed_paths" in inspect.signature(gr.mount_gradio_app).parameters:
        blocks.queue(default_concurrency_limit=_CONCURRENT_EVENTS)
        gr.mount_gradio_app(app, blocks, path="/", show_error=True)
    else:
        blocks.queue(concurrency_count=_CONCURRENT_EVENTS)
        blocks.blocked_paths, blocks.show_error = [], True
        gr.mount_gradio_app(app, blocks, path="/")
    # Not as an argument, which must be a list: folders that options name later count too.
    blocks.allowed_paths = page.ServedFolders()


def _host_arguments(arguments: argparse.Namespace) -> list[str]:
    flags = {
        "--data-dir": arguments.data_dir,
        "--ckpt-dir": arguments.checkpoint_dir,
        "--server-name": arguments.host,
        "--port": arguments.port,
    }
    return [part for flag, value in flags.items() if value is not None for part in (flag, str(value))]


def check_address(host: str, port: int) -> None:
    """Refuse an address that can't be listened on, IPv4 or IPv6.

    Raises:
        SettingsError: no address of this machine, or a port that is taken.
    """
    try:
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.create_server(address[:2], family=family):
                pass
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"Expected a free port and an address of this machine, got {_address(host, port)}: {error}. "
            "Choose another --port or --host."
        ) from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
