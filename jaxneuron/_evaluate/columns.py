"""Finds the columns of a table that are a network's inputs, and whether a line of CSV holds their names.

the network has names for its inputs, and the table for its columns  ->  by name; other columns are left out
otherwise                                          ->  by position, one column for each input, in their order
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jaxneuron import _errors

HEADERS = ("auto", "yes", "no")
MISSING = {"na", "n/a", "null", "none", "missing"}
YEARS = range(1900, 2101)
OPTION = "pass --header yes or --header no to say what it is"


class Inputs(NamedTuple):
    """The inputs of a network, for which a table is to have columns."""

    n_in: int
    names: tuple[str, ...] | None = None
    header: str = "auto"  # whether the first line of CSV holds names; one of HEADERS
    say: Callable[[str], object] = lambda message: None  # called with what the user should know

    def places(self, where: str, columns: Sequence[str]) -> list[int]:
        """The position of each input among the names `columns`; messages open with `where`."""
        if self.names is None:
            if len(columns) != self.n_in:
                raise ValueError(
                    f"{where}: must have {self.n_in} columns for this network, got {len(columns)}: "
                    f"{listed(columns)}; keep one column for each input, in the network's order"
                )
            self.say(
                f"{where}: columns are taken by position, because the network has no names for its inputs: "
                f"{listed(columns)}"
            )
            return list(range(self.n_in))
        names = set(self.names)
        place = {name: i for i, name in enumerate(columns)}
        if missing := [name for name in self.names if name not in place]:
            raise ValueError(
                f"{where}: must have a column for each input of the network, got none named "
                f"{listed(missing)} among {listed(columns)}; rename the columns, or remove their names"
            )
        taken = [place[name] for name in self.names]
        others = [columns[i] for i in sorted(set(range(len(columns))).difference(taken))]
        if twice := [name for name in others if name in names]:
            raise ValueError(
                f"{where}: must have one column named {twice[0]!r}, got several; rename the others"
            )
        left = f"; left out: {listed(others)}" if others else ""
        self.say(f"{where}: columns are taken by name: {listed(self.names)}{left}")
        return taken

    def are_names(self, line: str) -> bool:
        """Whether the first line of CSV holds names."""
        if self.header != "auto":
            return self.header == "yes"
        fields = names_in(line)
        if self.names is not None and set(self.names) <= set(fields):
            return True
        return all(
            re.search(r"[^\W\d_]", n) and n.lower() not in MISSING and not is_number(n) for n in fields
        )

    def check_row(self, where: str, line: str, others: Iterable[str]) -> None:
        """Refuses a first line of numbers that may also be names; `others` are the lines after it."""
        if self.header != "auto":
            return
        if (labels := _labels(line)) and labels not in map(_labels, others):
            raise ValueError(
                f"{where}: must be names or a row of numbers, got {line.strip():.60}, which may be either; "
                f"pass --header yes or --header no"
            )
        self.say(f"{where} holds only numbers and is evaluated as a row; {OPTION}")


def names_in(line: str) -> list[str]:
    """The names in a line of CSV, without quotes and the spaces around them."""
    try:
        fields = next(csv.reader([line.strip()], skipinitialspace=True), [""])
    except csv.Error:  # a field of megabytes
        fields = line.split(",")
    return [field.strip().strip("\"'") for field in fields]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # only Python takes 1_000 for a number


def _labels(line: str) -> str | None:
    """The kind of column names that a line of numbers may be: "years", or "integers" such as 0, 1, 2."""
    fields = [field.strip() for field in line.split(",")]
    if not all(re.fullmatch(r"\d{1,9}", field, re.ASCII) for field in fields):
        return None
    numbers = [int(field) for field in fields]
    if len(set(numbers)) == len(numbers) and set(numbers) <= set(YEARS):
        return "years"
    first, count = numbers[0], len(numbers)
    consecutive = numbers == list(range(first, first + count)) and (count > 1 or not first)
    return "integers" if consecutive else None


def listed(names: Iterable[str]) -> str:
    """Names, each in quotes, as a message lists them."""
    return _errors.listed(repr(name)[:60] for name in names)
