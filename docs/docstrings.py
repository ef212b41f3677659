"""Turns our docstrings into Markdown for mkdocstrings: a Griffe extension, named in mkdocs.yml."""

import re
from textwrap import dedent
from typing import Any

import griffe

BODY = r"((?:  .*\n|\n)*)"  # of a section: indented lines, and blank ones between them


def markdown(docstring: str) -> str:
    """Headings in bold, arguments as a list, examples as code; indented formulas are code already."""
    text = docstring + "\n"
    text = re.sub(rf"^Example:\n{BODY}", _example, text, flags=re.M)
    text = re.sub(rf"^(Args|Calling it):\n{BODY}", _arguments, text, flags=re.M)
    text = re.sub(
        rf"^(Returns|Raises|Warns):\n{BODY}", lambda m: f"**{m[1]}:** {dedent(m[2])}", text, flags=re.M
    )
    # those of one line, such as "Numerics: ..."
    return re.sub(r"^((?:Args|Returns|Raises|Warns|Numerics|Source)[\w, ]*:) ", r"**\1** ", text, flags=re.M)


def _example(match: re.Match[str]) -> str:
    example = dedent(match[1]).strip()
    code = example.startswith(">>>")  # else it is a sentence, on code that needs another library
    return f"**Example:**\n\n```pycon\n{example}\n```\n\n" if code else f"**Example:** {example}\n\n"


def _arguments(match: re.Match[str]) -> str:
    return f"**{match[1]}:**\n\n" + re.sub(r"^(\S.*?): ", r"- `\1`: ", dedent(match[2]), flags=re.M)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """`jaxneuron.evaluate` is the function, and not the module of this name that has it."""
        module = pkg["_evaluate.evaluate"]
        pkg.set_member("evaluate", griffe.Alias("evaluate", module["evaluate"], parent=pkg))
