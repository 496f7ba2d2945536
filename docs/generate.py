"""Write the pages of docs/ that follow from the code: the commands and the parts.

``python docs/generate.py`` writes them, ``python docs/generate.py --check`` only says whether they are
current (exit code 1 where they are not). A test does the latter, so a page cannot fall behind.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py; run `make docs` after a change of the code. -->"


def escaped(text: str) -> str:
    """Return ``text`` as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


# ------------------------------------------------------------------------------------------- commands
def command_line() -> str:
    """Return the page of the commands."""
    import typer

    from diabolo.cli.app import app
    from diabolo.parameters import Parameters

    group: Any = typer.main.get_command(app)
    shared = {field.name for field in fields(Parameters)}
    common: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    lines = [
        "# The command line",
        NOTE,
        "",
        "Every command takes `--help`. Exit codes: 0 done, 1 failed, 2 wrong usage.",
        "Rows are counted from 0, in messages and in files; lines of text files from 1.",
        "",
    ]
    for name, command in _commands(group):
        lines += [f"## diabolo {name}", "", *_usage(name, command), "", *_paragraphs(command.help), ""]
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        common |= {p.opts[0]: p for p in options if p.opts[0] in _COMMON}
        # what is an option of the command itself in some commands (sample --random-state) stays there
        tuned = {p.opts[0]: p for p in options if p.name in shared} if _has_parameters(options) else {}
        parameters |= tuned
        own = [p for p in options if p.opts[0] not in tuned and p.opts[0] not in _COMMON]
        if arguments:
            lines += [*_table("argument", {_shown(p): p for p in arguments}), ""]
        if own:
            lines += [*_table("option", {_flags(p): p for p in own}), ""]
        if tuned:
            lines += ["And all [parameters of the estimators](#parameters-of-the-estimators).", ""]
    lines += [
        "## Parameters of the estimators",
        "",
        *_table("option", {_flags(p): p for p in parameters.values()}),
    ]
    lines += ["", "## Every command", "", *_table("option", {_flags(p): p for p in common.values()})]
    return "\n".join(lines) + "\n"


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Return every command with its words, those of the groups within the group too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield before + name, command


_COMMON = ("--quiet", "--json", "--debug")


def _has_parameters(options: list[Any]) -> bool:
    return any(p.name == "latent_dim" for p in options)


def _table(what: str, rows: dict[str, Any]) -> list[str]:
    lines = [f"| {what} | meaning |", "|---|---|"]
    for shown, parameter in rows.items():
        default = "" if getattr(parameter, "is_flag", False) else _default(parameter)
        lines.append(f"| `{escaped(shown)}` | {escaped(parameter.help or '')}{default} |")
    return lines


def _usage(name: str, command: Any) -> list[str]:
    words = [p for p in command.params if p.param_type_name == "argument"]
    shown = [_shown(p) if p.required else f"[{_shown(p)}]" for p in words]
    return ["```", " ".join(["diabolo", name, *shown, "[OPTIONS]"]), "```"]


def _paragraphs(text: str | None) -> list[str]:
    return [part for paragraph in (text or "").split("\n\n") for part in (paragraph, "")][:-1]


def _shown(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper()).strip("[]{}")


def _flags(option: Any) -> str:
    flags = ", ".join(option.opts)
    return flags if option.is_flag else f"{flags} {option.metavar or 'TEXT'}"


def _default(parameter: Any) -> str:
    return (
        "" if parameter.default in (None, "") or parameter.required else f" (default: `{parameter.default}`)"
    )


# ---------------------------------------------------------------------------------------------- parts
def parts() -> str:
    """Return the page of the parts."""
    from diabolo import parts as p
    from diabolo.parts import known_parts

    axes: tuple[tuple[str, type[Any]], ...] = (
        ("architecture", p.Architecture),
        ("corruption", p.Corruption),
        ("latent", p.Latent),
        ("penalty", p.Penalty),
        ("loss", p.Loss),
        ("training", p.Training),
    )
    lines = [
        "# The parts",
        NOTE,
        "",
        "Each of the six choices is a parameter of every estimator. It takes the name of a part "
        '(`"masking"`), a name with settings (`"masking:0.3"`, `"gaussian:std=0.2"`) or the object '
        "(`MaskingNoise(0.3)` from `diabolo.parts`). Corruptions and penalties can be joined: "
        '`"gaussian:0.1+masking:0.2"`.',
        "",
    ]
    for axis, base in axes:
        lines += [f"## {axis}", "", "| name | class | what it does | settings |", "|---|---|---|---|"]
        for name, part in known_parts(base).items():
            first = escaped((inspect.getdoc(part) or "").split("\n\n")[0]).replace("\\\\|", "\\|")
            lines.append(f"| `{name}` | `{part.__name__}` | {_plain(first)} | {', '.join(_settings(part))} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """Return a docstring's sentence with its formulas as Markdown shows them."""
    pieces = text.split(":math:`")
    out = [pieces[0]]
    for piece in pieces[1:]:
        formula, _, rest = piece.partition("`")
        out.append(f"${formula}${rest}")
    return "".join(out).replace("``", "`")


def _settings(part: type[Any]) -> Iterator[str]:
    for field in fields(part):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        yield f"`{field.name}`" if default is MISSING else f"`{field.name}={default!r}`"


PAGES = {"cli.md": command_line, "parts.md": parts}


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` compare them; return the exit code."""
    stale = []
    for name, write in PAGES.items():
        page, text = HERE / name, write()
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            page.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")
    if stale and "--check" in arguments:
        print(f"docs/{', docs/'.join(stale)}: not current. Run: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
