"""Hooks of the site: the help texts of every command, taken from the command line itself, and the README's picture."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HELP = "<!-- help of every command -->"
INCLUDE = re.compile(r"^<!-- include (\S+) -->$", re.MULTILINE)
PICTURE = "live_view.svg"


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Put the help texts and the README files of the packages where a page asks for them."""
    if HELP in markdown:
        markdown = markdown.replace(HELP, command_reference())
    return INCLUDE.sub(lambda found: included(found[1], config["repo_url"]), markdown)


def included(path: str, repo_url: str) -> str:
    """A README without its title; its relative links lead to the repository."""
    text = (ROOT / path).read_text("utf-8").split("\n", 1)[1]

    def absolute(link: re.Match[str]) -> str:
        target = (ROOT / path).parent.joinpath(link[1]).resolve().relative_to(ROOT)
        return f"]({repo_url}/blob/main/{target})"

    return re.sub(r"\]\((?!https?:|#)([^)\s]+)\)", absolute, text)


def on_post_build(config: Any, **_: Any) -> None:
    """Copy the picture of the live view, which the README shows too."""
    shutil.copyfile(ROOT / ".github" / PICTURE, Path(config["site_dir"]) / PICTURE)


def command_reference() -> str:
    """A section per command with its help text."""
    import click

    from edge_sdk.cli.commands import command_line
    from edge_sdk.cli.main import COMMANDS

    group = command_line(COMMANDS)
    return "\n".join(_sections(group, "stetho", click.Context(group, info_name="stetho")))


def _sections(command: Any, name: str, context: Any) -> list[str]:
    lines = []
    for child_name in command.list_commands(context) if hasattr(command, "list_commands") else []:
        child = command.get_command(context, child_name)
        inner = type(context)(child, info_name=child_name, parent=context)
        full = f"{name} {child_name}"
        if hasattr(child, "list_commands"):
            lines += [f"## {full}", "", _about(child), "", *_sections(child, full, inner)]
            continue
        level = "##" if name == "stetho" else "###"
        lines += [f"{level} {full}", "", _about(child), "", "| argument or option | default | what |", "|---|---|---|"]
        lines += [_row(parameter) for parameter in child.params if parameter.name != "help"]
        lines += [""]
    return lines


def _about(command: Any) -> str:
    text = re.sub(r"\s+", " ", (command.help or "").strip())
    return text.replace("|", "\\|")


def _row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in getattr(parameter, "opts", []))
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name).upper()}`"
    elif not getattr(parameter, "is_flag", False):
        names += f" `{parameter.metavar or 'VALUE'}`"
    default = parameter.default
    shown = "" if default is None or default in ((), [], False) or callable(default) else f"`{default}`"
    return f"| {names} | {shown} | {(getattr(parameter, 'help', '') or '').replace('|', chr(92) + '|')} |"
