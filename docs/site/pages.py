"""Pages of the site that are written elsewhere: the README, its neighbours, and the commands' own help.

MkDocs calls `on_files`. Nothing is said twice by hand: the first page is README.md, the page of commands is what
`msr COMMAND --help` says, and links between them are turned to where their targets stand on the site.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.core
import typer.main
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Files beside `docs/` -> their page."""
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_MARKUP = re.compile(r"\[/?(?:bold|dim|italic)\]")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand elsewhere."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_moved(text)))
    files.append(File.generated(config, "commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links from a page in `docs/` to a file beside that folder."""
    return _LINK.sub(lambda found: _target(found, "../"), markdown)


def _moved(text: str) -> str:
    """Return what stands beside `docs/` as it reads from within: links to `docs/x.md` lose their folder."""
    return _LINK.sub(lambda found: _target(found, ""), text)


def _target(found: re.Match[str], above: str) -> str:
    path, anchor = found[1], found[2] or ""
    if path.startswith("docs/"):
        return f"]({path.removeprefix('docs/')}{anchor})"
    if above and path.startswith(above):
        path = path.removeprefix(above)
    elif above:
        return found[0]
    return f"]({PAGES[path]}{anchor})" if path in PAGES else found[0]


def commands_page() -> str:
    """Return every command with its arguments and options, as `--help` has them."""
    from msr_adapter.cli import app

    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    lines = ["# Commands", "", "Every command, as `msr COMMAND --help` says it.", ""]
    group = None
    for names, command in sorted(_commands(root), key=lambda each: _order(root, each[1])):
        panel = getattr(command, "rich_help_panel", None)
        if isinstance(panel, str) and panel != group and len(names) == 1:
            group = panel
            lines += [f"## {group}", ""]
        lines += [f"### msr {' '.join(names)}", "", *_described(command), ""]
    return "\n".join(lines)


def _order(root: typer.core.TyperGroup, command: Any) -> int:
    """Return the place of a command's group among the groups, in the order in which `--help` shows them."""
    panels = list(dict.fromkeys(getattr(each, "rich_help_panel", None) for each in root.commands.values()))
    return panels.index(getattr(command, "rich_help_panel", None)) if not isinstance(command, tuple) else 0


def _commands(root: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in root.commands.items():
        yield (name,), command
        if isinstance(command, typer.core.TyperGroup):
            for below, each in command.commands.items():
                each.rich_help_panel = command.rich_help_panel
                yield (name, below), each


def _described(command: Any) -> Iterator[str]:
    text, _, example = _MARKUP.sub("", command.help or "").replace("\\[", "[").partition("Example: ")
    yield " ".join(text.split()) if "\n\n" not in text else text.strip()
    if example:
        yield from ("", "```", " ".join(example.split()), "```")
    shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
    if shown:
        yield from ("", "| | |", "|---|---|")
    for each in shown:
        argument = each.param_type_name == "argument"
        spelled = [each.metavar or str(each.name).upper()] if argument else [*each.opts, *each.secondary_opts]
        names = ", ".join(f"`{name}`" for name in spelled)
        told = " ".join(_MARKUP.sub("", getattr(each, "help", None) or "").replace("\\[", "[").split())
        yield f"| {names} | {told.replace('|', chr(92) + '|')} |"
