"""Chapter 14, beyond: an image for a container that is about to start.

The pull happens in a child: its libraries and threads are not in the memory of the command that stays with the
container, and an ordinary user's child may become root of a namespace of its own.
"""

from __future__ import annotations

import _signal
import os

from minirt.errors import MinirtError
from minirt.kernel import process


def bring(name: str, quiet: bool, platform: str = "") -> None:
    """Pull the image `name`, made for `platform` ("" is this machine's), and tell about it on stderr unless `quiet`.
    Raises MinirtError when that fails."""
    hear, speak = os.pipe()
    before = _signal.pthread_sigmask(_signal.SIG_SETMASK, ())  # the user may lose patience
    try:
        pid = process.fork_call(lambda: _pull(name, quiet, platform, speak))
        os.close(speak)
        said = b""
        while part := os.read(hear, 4096):
            said += part
        status = process.wait(pid)
    finally:
        os.close(hear)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    if said or status:
        raise MinirtError(said.decode() or "the pull was interrupted")


def _pull(name: str, quiet: bool, platform: str, speak: int) -> int:
    from minirt.registry import library

    try:
        library.prepare()
        from minirt.images import reference
        from minirt.registry import transfer
        from minirt.registry.progress import Progress

        progress = Progress(quiet)
        for line in transfer.pull_image(reference.parse(name), platform, progress).lines():
            progress.line(line)
    except (MinirtError, OSError) as error:
        os.write(speak, str(error).encode())
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
