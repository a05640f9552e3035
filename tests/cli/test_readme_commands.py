"""The table of commands in README.md is written from the commands' own help.

`UPDATE_GOLDENS=1 pytest tests/cli/test_readme_commands.py` rewrites it.
"""

import os
import re
from typing import Any

import typer.core
import typer.main

from msr_adapter.cli import app
from tests.support.paths import ROOT

README = ROOT / "README.md"
TABLE = re.compile(r"(?<=<!-- commands -->\n).*?(?=<!-- end of commands -->)", re.S)
MARKUP = re.compile(r"\[/?(?:bold|dim|italic)\]")


def table() -> str:
    """Return one row for each command: its group, how it is called, and the first sentence of its help."""
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    groups = list(dict.fromkeys(command.rich_help_panel for command in root.commands.values()))  # type: ignore[attr-defined]  # Typer's
    lines, told = ["", "| | command | does |", "|---|---|---|"], None
    for name, command in sorted(root.commands.items(), key=lambda each: groups.index(each[1].rich_help_panel)):  # type: ignore[attr-defined]
        group = command.rich_help_panel  # type: ignore[attr-defined]
        lines.append(f"| {group if group != told else ''} | `{usage(name, command)}` | {summary(command)} |")
        told = group
    return "\n".join(lines) + "\n\n"


def usage(name: str, command: Any) -> str:
    """Return the command with what it must be given, and its optional arguments in brackets."""
    if isinstance(command, typer.core.TyperGroup):
        if len(command.commands) == 1:
            [(below, only)] = command.commands.items()
            return usage(f"{name} {below}", only)
        return f"msr {name} " + "\\|".join(command.commands)
    words = ["msr", name]
    for each in command.params:
        if each.param_type_name == "argument":
            shown = (each.metavar or each.name.upper()).strip("[]")
            words.append(shown if each.required else f"[{shown}]")
        elif each.required:
            words.append(f"{each.opts[0]} {each.metavar or each.name.upper()}")
    return " ".join(words).replace("|", "\\|")


def summary(command: Any) -> str:
    """Return the first sentence of the help, without the markup of terminals."""
    text = " ".join(MARKUP.sub("", command.help).replace("\\[", "[").split())
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0].removesuffix(".").replace("|", "\\|")


def test_the_table_of_commands_is_what_their_help_says() -> None:
    page = README.read_text(encoding="utf-8")
    written = TABLE.sub(lambda _: table(), page)
    if os.environ.get("UPDATE_GOLDENS"):
        README.write_text(written, encoding="utf-8")
    assert os.environ.get("UPDATE_GOLDENS") or page == written


def test_every_command_has_a_row() -> None:
    rows = re.findall(r"`msr ([\w-]+)", TABLE.search(README.read_text(encoding="utf-8"))[0])  # type: ignore[index]
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    assert sorted(rows) == sorted(root.commands)
