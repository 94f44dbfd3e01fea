"""Command-line flags that a web UI gets with this extension."""

from argparse import ArgumentParser


def preload(parser: ArgumentParser) -> None:
    """Add our flags; the web UI calls this before it parses its command line."""
    parser.add_argument(
        "--motion-module-dir",
        metavar="DIR",
        default=None,
        help="folder of motion modules, searched before models/motion",
    )
