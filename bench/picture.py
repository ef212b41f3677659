"""Draws the picture beside the table: how many times as fast as the best peer jaxneuron is, case by case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

WON, LOST = "#2a6f97", "#c8553d"


def draw(record: list[dict[str, Any]], path: Path, peer: str = "the best peer of the case") -> None:
    """Draws cases from the lowest to the highest ratio, losses in red; the bars are quartiles."""
    record = sorted(record, key=lambda r: r["speed"]["median"])
    figure = Figure(figsize=(9, 1.2 + 0.26 * len(record)), layout="constrained")
    ax = figure.add_subplot()
    for y, r in enumerate(record):
        speed = r["speed"]
        colour = WON if speed["median"] >= 1 else LOST
        ax.hlines(y, 1, speed["median"], color=colour, linewidth=2)
        ax.plot(speed["median"], y, "o", color=colour, markersize=6)
        ax.plot([speed["low"], speed["high"]], [y, y], color=colour, linewidth=6, alpha=0.3)
        ax.annotate(
            f"{speed['median']:.2f}  {r['peer']}", (max(speed["high"], 1), y), (6, 0),
            textcoords="offset points", va="center", fontsize=7, color="0.3",
        )  # fmt: skip
    ax.axvline(1, color="0.3", linewidth=1)
    ax.set_yticks(range(len(record)), [r["case"]["name"] for r in record], fontsize=8)
    ax.set_xscale("log")
    edges = [1, *(r["speed"][end] for r in record for end in ("low", "high"))]
    ax.set_xlim(0.8 * min(edges), 2.2 * max(edges))  # room for the names
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set_xlabel(f"times as fast as {peer}")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    figure.savefig(path, dpi=130)
