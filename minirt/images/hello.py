"""Chapter 13, beyond: the image `hello-world`, made from this machine's own files.

    python -m minirt.images.hello

A first container needs an image, and an image usually comes from a registry, which not everybody can reach. This one
holds a program that every Linux has, `cat`, with the libraries it needs, and the text that it prints.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

from minirt.errors import MinirtError
from minirt.images import load, pack

NAME = "hello-world"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GREETING = """
Hello from minirt!
A program of this image printed these lines, inside a container of its own: it sees no other
process, no other file than its own, and a host name that is not the machine's.

To see each step that led here, and the chapter that explains it:
 # minirt --explain run --rm hello-world

To learn how it is done, and to build it yourself:
 $ python -m chapters

"""


def tree() -> pack.Tree:
    """The files of the image: a program that prints a file, and the file. Raises MinirtError."""
    files = pack.Tree()
    cat = shutil.which("cat", path=PATH)
    if cat is None:
        raise MinirtError("this machine has no program named cat to make an image of")
    files.program(cat, "/bin/cat")
    files.text("/etc/hello", GREETING)
    return files


def write(path: str) -> None:
    """Write the image as one file, as `docker save` would: the same machine always gives the same bytes."""
    pack.write_image(path, tree(), {"Cmd": ["/bin/cat", "/etc/hello"], "Env": [f"PATH={PATH}"]}, [NAME])


def main() -> int:
    """Make the image and load it into the store. Returns the exit code."""
    try:
        with tempfile.TemporaryDirectory(prefix="minirt-hello-") as place:
            write(f"{place}/image.tar")
            source = os.open(f"{place}/image.tar", os.O_RDONLY | os.O_CLOEXEC)
            try:
                for image in load.load(source):
                    sys.stdout.writelines(f"Loaded image: {name}\n" for name in image.names)
            finally:
                os.close(source)
    except (MinirtError, OSError) as error:
        sys.stderr.write(f"minirt: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
