"""`minirt load`, `save` and `import`: images as files."""

from __future__ import annotations

import os

from minirt.cli import format as formats
from minirt.cli.options import Command, Option, Options, complain
from minirt.errors import MinirtError
from minirt.images import platforms

FORMATS = ("docker-archive", "oci-archive")


def load(options: Options) -> int:
    """`minirt load`."""
    from minirt.images.load import load as load_archive

    _tell_of_owners()
    lines = []
    for image in load_archive(_source("load", options["input"] or "-", " with -i"), options["platform"]):
        lines += [f"The image {name} already exists, renaming the old one with ID {before} to empty string"
                  for name, before in image.displaced]
        lines += [f"Loaded image: {name}" for name in image.names] or [f"Loaded image ID: {image.id}"]
    formats.show("".join(line + "\n" for line in lines))
    return 0


def import_image(options: Options) -> int:
    """`minirt import`."""
    from minirt.images import importing, streams

    _tell_of_owners()
    source = options.arguments[0]
    if source.startswith(("http://", "https://")):
        pieces = importing.fetch(source)
    else:
        pieces = streams.read_all(_source("import", source, ""))
    identifier = importing.import_archive(
        pieces, options.arguments[1] if options.arguments[1:] else "", options["change"],
        options["message"] or f"Imported from {source}", options["platform"])
    formats.show(f"{identifier}\n")
    return 0


def save(options: Options) -> int:
    """`minirt save`."""
    from minirt.images import save

    if options["output"]:
        save.save_file(options.arguments, options["output"], options["format"], options["platform"])
    elif os.isatty(1):
        raise MinirtError("cowardly refusing to save to a terminal: give a file with -o, or redirect the output")
    else:
        save.save(options.arguments, 1, options["format"], options["platform"])
    return 0


def _source(what: str, path: str, how: str) -> int:
    """The open file, or standard input for `-`."""
    if path == "-":
        if os.isatty(0):
            raise MinirtError(f"requested {what} from stdin, but stdin is empty: give a file{how}, or pipe an "
                              "archive in")
        return 0
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MinirtError(f"open {path}: {(error.strerror or '').lower()}") from None


def _tell_of_owners() -> None:
    """Say what an ordinary user's files cannot have."""
    if os.geteuid():
        from minirt.namespaces import rootless

        for sentence in rootless.news([rootless.maps()[2]]):
            complain(sentence)


def _known_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError(f"known are {' and '.join(FORMATS)}")
    return text


COMMANDS = {
    "load": Command(
        "load",
        "[OPTIONS]",
        "Load an image from a tar archive or STDIN",
        (
            Option("input", "string", "Read from tar archive file, instead of STDIN", short="i"),
            Option("platform", "string", "Load only what is made for this platform (e.g. linux/amd64)",
                   check=platforms.parse),
            Option("quiet", help="Suppress the load output", short="q"),
        ),
        action=load,
        maximum=0,
        aliases=("image load", "load"),
    ),
    "save": Command(
        "save",
        "[OPTIONS] IMAGE [IMAGE...]",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
        (
            Option("format", "string", "Form of the archive: docker-archive, which is an OCI layout too, or "
                   "oci-archive", default=FORMATS[0], check=_known_format),
            Option("output", "string", "Write to a file, instead of STDOUT", short="o"),
            Option("platform", "string", "Save only the given platform (e.g. linux/amd64)", check=platforms.parse),
        ),
        action=save,
        minimum=1,
        aliases=("image save", "save"),
    ),
    "import": Command(
        "import",
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        (
            Option("change", "list", "Apply Dockerfile instruction to the created image", short="c"),
            Option("message", "string", "Set commit message for imported image", short="m"),
            Option("platform", "string", "Set platform if the image is made for another one",
                   check=platforms.parse),
        ),
        action=import_image,
        minimum=1,
        maximum=2,
        aliases=("image import", "import"),
    ),
}
