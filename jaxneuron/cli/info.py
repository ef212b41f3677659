"""`jaxneuron info MODEL`: the summary of a network's file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxneuron.convert._files import SUFFIXES, described


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("info", help="print the summary of a network")
    parser.add_argument("model", metavar="MODEL", type=Path, help=SUFFIXES)
    parser.add_argument("--output", metavar="NAME", help="the value of an .onnx file to end at")
    parser.set_defaults(command=_info)


def _info(options: argparse.Namespace) -> None:
    print(described(options.model, options.output))
