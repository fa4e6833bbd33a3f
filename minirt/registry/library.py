"""Chapter 14, beyond: where the library `requests` is found.

Only what speaks with a registry needs it, and it takes as long to import as ten containers take to start: so nothing
else looks for it. An installed minirt has a copy beside itself; an interpreter started without its site packages finds
those of its own environment, or of the system, here.
"""

from __future__ import annotations

import os
import sys

from minirt.errors import MinirtError


def prepare() -> None:
    """Make `import requests` work. Raises MinirtError, with what to install, where it is nowhere."""
    before = list(sys.path)
    for place in ("", *_places()):
        if place:
            sys.path.append(place)
        try:
            import requests  # noqa: F401

            return
        except ImportError:
            sys.path[:] = before
    raise MinirtError("speaking with a registry needs Python's library requests, which is not installed: "
                      "apt install python3-requests, dnf install python3-requests, or pip install requests")


def _places() -> list[str]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [path for path in (
        f"{here}/borrowed", f"{sys.prefix}/lib/{version}/site-packages", "/usr/lib/python3/dist-packages",
        f"/usr/lib/{version}/site-packages", f"/usr/local/lib/{version}/dist-packages",
    ) if os.path.isdir(path)]
