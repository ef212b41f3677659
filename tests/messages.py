"""Updates `messages.txt`, the table of all messages and all lines of help, as a user sees them.

    python -m pytest -p tests.messages [TESTS]      updates the table with the messages that these tests raise

This module finds the messages in the source: wherever the package makes an exception, gives a warning or
writes a line to standard error. For each message the table needs a line that fits its text. That line is an
example: a message that a test raised or, if no test raises it, one written by hand. An update removes lines
that no longer fit, and replaces lines that the tests no longer raise word for word.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGE = str(ROOT / "jaxneuron")
TABLE = Path(__file__).with_name("messages.txt")
HEAD = """\
Every line of help and every message of jaxneuron, as a user sees it: below the command, or the file that has it.
tests/messages.py says how this table is kept. "[no remedy: ...]" is no part of a message: it says why it has none.
"""
SPEAKING = {"warn", "say", "add_note", "error", "ArgumentTypeError"}  # functions that take a message
ANY = "\0"  # in a text, stands for a part that is known only when the message is made
MISSING = "MISSING: "  # in the table, before a text that has no line yet
PASSED_ON = "passes on: "  # before a call that passes on a message made elsewhere

# --- the messages in the source ---


class Message(NamedTuple):
    file: str
    by: str  # the exception or the function that takes the text
    text: str

    def fits(self, line: str) -> bool:
        return bool(re.search(".*".join(map(re.escape, self.text.split(ANY))), line))


def messages() -> list[Message]:
    """Returns all messages, in the order of the source."""
    paths = sorted(Path(PACKAGE).rglob("*.py"), key=lambda path: path.relative_to(ROOT).parts)
    sources = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}
    trees = {file: ast.parse(source) for file, source in sources.items()}
    takers = _exceptions(trees.values()) | SPEAKING
    constants = {name: value for tree in trees.values() for name, value in _assigned(tree) if name.isupper()}
    found = []
    for file, tree in trees.items():
        named = constants | dict(_assigned(tree))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            by = getattr(call.func, "attr", getattr(call.func, "id", ""))
            to_stderr = any(getattr(keyword.value, "attr", "") == "stderr" for keyword in call.keywords)
            if by in takers or to_stderr:
                texts = [text for text in _texts(call.args[0], named) if re.search(r"[a-z]{2}(?!\w*:)", text)]
                texts = texts or [PASSED_ON + (ast.get_source_segment(sources[file], call) or "")]
                found += [Message(file, by, " ".join(text.split())) for text in texts]
    return found


def _assigned(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.FunctionDef):
            returns = (each for each in ast.walk(node) if isinstance(each, ast.Return) and each.value)
            yield from ((node.name, each.value) for each in returns)


def _exceptions(trees: Iterable[ast.AST]) -> set[str]:
    """Returns the names of Python's exceptions and of the package's exceptions."""
    types = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
    found = {name for name, value in types.items() if issubclass(value, BaseException)}
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while more := {c.name for c in classes if found & {getattr(base, "id", "") for base in c.bases}} - found:
        found |= more
    return found


def _texts(node: ast.AST, named: dict[str, ast.AST]) -> list[str]:
    """Returns the texts that an expression can have, with `ANY` for their variable parts."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(part.value if isinstance(part, ast.Constant) else ANY for part in parts)]
        case ast.IfExp(body=one, orelse=other):
            return _texts(one, named) + _texts(other, named)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in _texts(left, named) or [ANY] for b in _texts(right, named) or [ANY]]
        case ast.Dict(values=values):
            return [text for value in values for text in _texts(value, {})]
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name in named:
            return _texts(named[name], {})
        case ast.Subscript(value=value):  # text[:200]
            return _texts(value, named)
        case ast.Call(func=ast.Attribute(value=value), args=arguments):  # text.lstrip(), TEXTS.get(key, text)
            return [text for part in (value, *arguments[-1:]) for text in _texts(part, named)]
    return []


# --- the table ---


def helps() -> dict[str, list[str]]:
    """Returns the help of each command: what it does, and a line for each argument."""
    from jaxneuron.cli import _parser

    found: dict[str, list[str]] = {}

    def describe(parser: argparse.ArgumentParser) -> None:
        lines = [text for text in (parser.description, parser.epilog) if text]
        found[f"{parser.prog} --help"] = lines
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                lines += [f"{choice.dest}: {choice.help}" for choice in action._choices_actions]
                for name in action.choices:
                    describe(action.choices[name])
            elif action.dest not in ("help", "version"):
                value = action.metavar or "|".join(action.choices or ()) or action.dest.upper()
                names = " ".join([*action.option_strings, str(value) * (action.nargs != 0)]).strip()
                lines.append(f"{names}: {action.help}")

    describe(_parser())
    return found


def sections(text: str) -> dict[str, list[str]]:
    """Returns the titles of the table, each with the lines below it."""
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {title: body.strip().splitlines() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def lines_of(message: Message, lines: Iterable[str], found: list[Message]) -> list[str]:
    """Returns the lines that fit this message and not a longer one of its file, else the first that fits."""
    longer = [m for m in found if m.file == message.file and len(m.text) > len(message.text)]
    fitting = [line for line in lines if message.fits(line) and not line.startswith(MISSING)]
    return [line for line in fitting if not any(m.fits(line) for m in longer)] or fitting[:1]


def table(known: dict[str, list[str]], raised: Iterable[str] = ()) -> str:
    """Returns the table of all messages, from `known` lines of each file and messages that tests `raised`."""
    wanted, found = helps(), messages()
    for message in found:
        lines = lines_of(message, known.get(message.file, []), found)
        now = sorted(raised, key=lambda text: (message.file not in seen[text], len(text), text))
        now = lines_of(message, now, found)[:1]
        if message.text.startswith(PASSED_ON):
            lines = [message.text]
        elif now and not any(
            line in seen for line in lines
        ):  # the lines fit, but may have outdated variable parts
            lines = now
        section = wanted.setdefault(message.file, [])
        section += [
            line for line in lines or [MISSING + message.text.replace(ANY, "...")] if line not in section
        ]
    return HEAD + "".join(f"\n## {title}\n" + "\n".join(lines) + "\n" for title, lines in wanted.items())


# --- messages that tests raise: a pytest plugin ---

seen: dict[str, set[str]] = {}  # each message, with the files of the package that it came through
FOLDER = re.compile(rf"({re.escape(tempfile.gettempdir())}|{re.escape(str(ROOT))})(/[\w.-]+)*/(?=[\w.-])")


def _record(text: str, files: Iterable[str]) -> None:
    text = re.sub("0x[0-9a-f]+", "0x...", FOLDER.sub("", " ".join(text.split())))
    ours = (Path(file).relative_to(ROOT).as_posix() for file in files if file.startswith(PACKAGE))
    seen.setdefault(text, set()).update(ours)


def _watch(frame: FrameType, event: str, argument: Any) -> Any:
    if not frame.f_code.co_filename.startswith(PACKAGE):
        return None
    frame.f_trace_lines = False
    name = frame.f_code.co_name
    if event == "call" and name in ("warn", "_fail") and frame.f_back:
        text = "jaxneuron: " * (name == "_fail") + frame.f_locals["message"]
        _record(text, [frame.f_back.f_code.co_filename])
    if event == "exception":
        error, files = argument[1], []
        while error:
            files += [each.f_code.co_filename for each, _ in traceback.walk_tb(error.__traceback__)]
            error = error.__context__
        _record(str(argument[1]), files)
    return _watch


def pytest_configure() -> None:
    sys.settrace(_watch)
    threading.settrace(_watch)


def pytest_unconfigure() -> None:
    sys.settrace(None)
    whole = [text for text in seen if not any(text != other and text in other for other in seen)]
    TABLE.write_text(table(sections(TABLE.read_text("utf-8")), whole), "utf-8")
