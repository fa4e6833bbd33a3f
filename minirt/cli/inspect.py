"""`minirt inspect` and `minirt container inspect`: whatever has that name, in full."""

from __future__ import annotations

from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options
from minirt.errors import MinirtError, NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPES = ("container", "image")


def find(text: str, kind: str, sized: bool) -> dict[str, Any]:
    """The description of the container or image that `text` means. Raises NotFoundError in Docker's words."""
    if kind in ("", "container"):
        try:
            from minirt.containers import inspect as containers
            from minirt.containers import record

            return containers.inspect(record.find(text), sized)
        except NotFoundError:
            if kind:
                raise
    try:
        from minirt.images import inspect as images

        return images.inspect(text)
    except (NotFoundError, ModuleNotFoundError):
        if kind:
            raise
    except MinirtError:
        if kind:
            raise  # without a type, what can be no image name is simply nothing
    raise NotFoundError(f"No such object: {text}")


def show(names: list[str], kind: str, template: str, sized: bool = False) -> int:
    """Prints the descriptions of all that can be found, tells what cannot. Returns the exit code."""
    return formats.describe(names, lambda name: find(name, kind, sized), template)


def inspect(options: Options) -> int:
    """`minirt inspect`."""
    if options["type"] not in ("", *TYPES):
        raise MinirtError(f'"{options["type"]}" is not a valid value for --type: it is container or image')
    return show(options.arguments, options["type"], options["format"], options["size"])


def inspect_container(options: Options) -> int:
    """`minirt container inspect`."""
    return show(options.arguments, "container", options["format"], options["size"])


FORMAT = Option("format", "string", "Format output: 'json' or a template", short="f")
SIZE = Option("size", help="Display total file sizes if the type is container", short="s")
COMMANDS = {
    "inspect": Command(
        "inspect",
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on containers and images",
        (FORMAT, SIZE, Option("type", "string", "Only inspect objects of the given type: container, image")),
        action=inspect,
        minimum=1,
    ),
    "container inspect": Command(
        "container inspect",
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Display detailed information on one or more containers",
        (FORMAT, SIZE),
        action=inspect_container,
        minimum=1,
    ),
}
