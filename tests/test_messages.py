"""The table `messages.txt` has every message of the package, and every message says what the user can do."""

import re

import pytest

from tests import messages

pytestmark = pytest.mark.once

KNOWN = messages.sections(messages.TABLE.read_text("utf-8"))
# The advice in a message begins with one of these words.
REMEDY = re.compile(
    "[;:,] (or |and )?(add|begin|call|check|choose|convert|copy|correct|did you mean|draw|end|evaluate|export|extract|fill|fit|"
    "fold|give|keep|leave|look|make|map|name|nest|pass|pip install|put|read|remove|rename|replace|reshape|run|save|scale|see|"
    r"stack|transpose|unset|update|use|wait|write)\b"
)
FINDINGS = {"AssertionError"}  # a law of jaxneuron.testing tells what it found
NOTES = {"say", "print"}  # functions that tell what was done


def test_the_table_has_every_message_and_every_line_of_help():
    assert messages.table(KNOWN) == messages.TABLE.read_text("utf-8"), (
        "write a line for each MISSING into tests/messages.txt, as a user sees it, or run the tests that raise it "
        "with -p tests.messages; then read the difference"
    )


def test_each_message_names_the_remedy():
    found = messages.messages()
    without = [
        line
        for message in found
        if message.by not in FINDINGS | NOTES and not message.text.startswith(messages.PASSED_ON)
        for line in messages.lines_of(message, KNOWN.get(message.file, []), found)
        if not REMEDY.search(line) and "[no remedy: " not in line
    ]
    assert not without
