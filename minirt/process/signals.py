"""Chapter 12: signals by name and number (signal(7)); both supported architectures have the same numbers."""

from __future__ import annotations

from minirt.errors import MinirtError

NUMBERS = {name: number for number, name in enumerate(
    ("HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
     "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
     "PWR", "SYS"), 1)}
NUMBERS |= {"IOT": 6, "POLL": 29, "CLD": 17, "RTMIN": 34, "RTMAX": 64}
NUMBERS |= {f"RTMIN+{offset}": 34 + offset for offset in range(1, 16)}
NUMBERS |= {f"RTMAX-{offset}": 64 - offset for offset in range(1, 15)}


def number(text: str) -> int:
    """The number of a signal given as `TERM`, `SIGTERM`, `sigterm` or `15`. Raises MinirtError in Docker's words."""
    word = text.upper().removeprefix("SIG")
    found = NUMBERS.get(word)
    if found is None and word.isdigit() and 0 < int(word) < 65:
        found = int(word)
    if found is None:
        raise MinirtError(f"invalid signal: {text}")
    return found
