"""The code, commands and pictures of the documentation: each page, run from its top, prints what it says."""

import doctest
import importlib.util
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import settings

import jaxneuron
from jaxneuron._names import BY_FAMILY, BY_NAME
from jaxneuron.cli import main

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def blocks(page):
    """Yields the fenced blocks of a page: the language, the line number and the text of each."""
    text = (DOCS / page).read_text()
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
        yield match[1], text[: match.start(2)].count("\n"), match[2]


@pytest.fixture
def _empty_folder_and_default_settings(tmp_path, monkeypatch):
    """Lets a page run in an empty folder with JAX's default settings, then restores what the page changed."""
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), np.printoptions():
        yield
    settings.load_profile("jaxneuron")


@pytest.mark.usefixtures("_empty_folder_and_default_settings")
@pytest.mark.parametrize("page", [page for page in PAGES if not page.endswith(".ko.md")])
def test_a_page_prints_what_it_says(page, capfd):
    names, printed = {"__name__": "__main__"}, None
    for language, line, text in blocks(page):
        if language == "pycon":
            wrong = []
            test = doctest.DocTestParser().get_doctest(text, names, page, str(DOCS / page), line)
            doctest.DocTestRunner().run(test, out=wrong.append, clear_globs=False)
            assert not wrong, "".join(wrong)
            names.update(test.globs)
        elif language == "text" and printed is not None:
            assert text == printed, f"{page}, line {line}"
        commands = [row for row in text.splitlines() if row.startswith("jaxneuron ")]
        printed = None
        if language == "sh" and commands:
            capfd.readouterr()
            for command in commands:
                assert main(shlex.split(command)[1:]) == 0, f"{command}: {capfd.readouterr().err}"
            printed = capfd.readouterr().out


def test_the_tutorial_is_the_same_in_both_languages():
    english, korean = ([(kind, text) for kind, _, text in blocks(page)] for page in ("tutorial.md", "tutorial.ko.md"))  # fmt: skip
    assert english == korean
    shape = r"^(#+|- |\*\*\d+\.\*\*|!\[|\||</?details)|\]\((\S+?)\)"  # headings, items, rows, pictures, links
    outlines = [
        [match.group(1) or match.group(2) for match in re.finditer(shape, prose(page), re.M)]
        for page in ("tutorial.md", "tutorial.ko.md")
    ]
    swapped = {"tutorial.md": "tutorial.ko.md"}
    assert outlines[0] == [swapped.get(mark, mark) for mark in outlines[1]]


def prose(page):
    return re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.M | re.S)


def test_pictures_are_what_the_command_makes(tmp_path):
    """Compares only words: curves and numbers in pictures depend on the versions of matplotlib and jax."""
    made = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    pictures = importlib.util.module_from_spec(made)
    made.loader.exec_module(pictures)
    pictures.remake(tmp_path)
    committed = {path.name for path in (DOCS / "pictures").iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == committed
    shown = {name for page in PAGES for name in re.findall(r"\]\((?:\.\./)?pictures/(.*?)\)", prose(page))}
    assert shown == committed
    for name in committed:
        words = [
            sorted(re.findall(r"<!-- (.*?) -->", re.sub(r"\d", "", (folder / name).read_text())))
            for folder in (tmp_path, DOCS / "pictures")
        ]
        assert words[0] == words[1] != [], name


def test_every_test_file_that_is_named_exists():
    """Docstrings, comments and pages name test files. Moving a test file would make such a name wrong."""
    root = DOCS.parent
    folders = [root / name for name in ("jaxneuron", "bench", "docs", "scripts", "tests")]
    files = [*root.glob("*.*"), *(path for folder in folders for path in folder.rglob("*"))]
    named = {
        (path.relative_to(root).as_posix(), name)
        for path in files
        if path.suffix in {".py", ".md", ".cc", ".h", ".toml", ".txt"}
        for name in re.findall(r"\btests/[a-z0-9_/]+\.(?:py|cc|h)\b", path.read_text())
    }
    assert len(named) > 20
    assert not sorted(f"{path}: {name}" for path, name in named if not (root / name).exists())


def test_the_reference_holds_every_public_name():
    named = set(re.findall(r"^::: jaxneuron\.(\S+)", (DOCS / "reference/index.md").read_text(), re.M))
    modules = {path.stem for path in (DOCS / "reference").glob("*.md")} - {"index"}
    assert named == set(jaxneuron.__all__) - {"gates"}
    assert modules == {"convert", "gates", "testing", "plot"}


def test_the_table_of_names_has_every_activation():
    text = (DOCS / "reference/index.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)", row.split(" | ")[0])}
    assert {*BY_NAME, *(family.__name__ for family in BY_FAMILY.values())} <= named
