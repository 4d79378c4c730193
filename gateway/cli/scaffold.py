"""`gateway new`: an adapter to begin with, and a test for it that needs no server."""

from __future__ import annotations

import importlib.resources
import keyword
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from gateway.cli.terminal import WrongUsage, failures


def new(
    name: Annotated[str, typer.Argument(help="The module's name, such as my_tools.")],
    directory: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
) -> None:
    """Write a commented adapter, NAME.py, and its test, test_NAME.py."""
    with failures():
        files = _files(name)
        _check(name, directory, list(files))
        for file, text in files.items():
            (directory / file).write_text(text)
    adapter = directory / f"{name}.py"
    typer.echo(f"wrote {adapter} and {directory / f'test_{name}.py'}\n")
    typer.echo(f"  pytest {directory / f'test_{name}.py'}")
    typer.echo(f"  gateway serve {adapter}")
    typer.echo("  gateway stream train epochs=5          in another terminal")


def _files(name: str) -> dict[str, str]:
    words = {"module": name, "adapter": "".join(part.capitalize() for part in name.split("_"))}
    folder = importlib.resources.files("gateway.cli") / "templates"
    return {
        file: Template((folder / template).read_text("utf-8")).substitute(words)
        for file, template in ((f"{name}.py", "tools.py.txt"), (f"test_{name}.py", "test_tools.py.txt"))
    }


def _check(name: str, directory: Path, files: list[str]) -> None:
    """Return if these can be written.

    Raises:
        WrongUsage: the name is none of a module, or a file is there already.
    """
    if not (name.isidentifier() and name.islower()) or keyword.iskeyword(name):
        raise WrongUsage(f"{name!r} is no name of a module: small letters, digits and underscores, such as my_tools")
    if not directory.is_dir():
        raise WrongUsage(f"{directory}: there is no such directory")
    there = [str(directory / file) for file in files if (directory / file).exists()]
    if there:
        raise WrongUsage(f"{', '.join(there)}: already there, and left as it is")
