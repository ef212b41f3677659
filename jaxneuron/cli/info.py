"""`jaxneuron info MODEL`: prints a summary of a network's file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxneuron.convert._files import SUFFIXES, described


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="print a summary of a network's file",
        description="Print the shapes, activations and number of parameters of the network in a file.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help=f"the network's file: {SUFFIXES}")
    parser.add_argument(
        "--output", metavar="NAME", help="for an .onnx file: the value that the network is to give"
    )
    parser.set_defaults(command=_info)


def _info(options: argparse.Namespace) -> None:
    print(described(options.model, options.output))
