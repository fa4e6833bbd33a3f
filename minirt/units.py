"""Ground floor: sizes, times and durations, read and written in Docker's words."""

from __future__ import annotations

import time

from minirt import state
from minirt.errors import MinirtError, UsageError

_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_AGO = ((60, 1, "second"), (3600, 60, "minute"), (172800, 3600, "hour"), (1209600, 86400, "day"),
        (5184000, 604800, "week"), (63072000, 2592000, "month"))
_DIGITS = {ord(digit): "0" for digit in "0123456789"}


def parse_size(text: str) -> int:
    """Bytes in a size such as `64m`, `1.5g`, `512kb` or `1GiB` (powers of 1024, as Docker reads memory sizes).

    Raises UsageError when it is no size.
    """
    word = text.strip().lower()
    digits = word.rstrip("bkmgtpi ")
    suffix = word[len(digits):].strip()
    unit = suffix[:1] if suffix in ("", "b") or suffix[1:] in ("", "b", "ib") else "?"
    try:
        number = float(digits)
        if number < 0 or number != number or unit not in _BINARY or digits.startswith("+"):
            raise ValueError
        return int(number * _BINARY[unit])
    except (ValueError, OverflowError):
        raise UsageError(f"invalid size: '{text}'") from None


def human_size(size: float) -> str:
    """A number of bytes as Docker prints it: powers of 1000, three significant digits (`4.26MB`)."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(size) < 1000 or unit == "PB":
            break
        size /= 1000
    return f"{size:.3g}{unit}" if abs(size) < 999.5 else f"{size:.0f}{unit}"


def human_duration(seconds: float) -> str:
    """A span of time as Docker words it: `Less than a second`, `5 seconds`, `About a minute`, `3 weeks`."""
    if seconds < 1:
        return "Less than a second"
    whole = int(seconds)
    if 60 <= whole < 120:
        return "About a minute"
    if 3600 <= whole < 5400:
        return "About an hour"
    for limit, size, word in _AGO:
        if whole < limit:
            count = int(seconds / size + 0.5) if word == "hour" else whole // size
            return f"{count} {word}{'' if count == 1 else 's'}"
    return f"{whole // 31536000} years"


def human_ago(seconds: float) -> str:
    """The same, with `ago`: the words of `ps` and `images`."""
    return f"{human_duration(seconds)} ago"


def parse_duration(text: str) -> float:
    """Seconds in a duration of Go's form (`1m30s`, `500ms`, `1.5h`). Raises UsageError when it is none."""
    rest, total = text.strip(), 0.0
    if rest == "0":
        return total
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number):]
        unit = rest[: len(rest) - len(rest.lstrip("nuµmsh"))]
        rest = rest[len(unit):]
        if not number or number.count(".") > 1 or number == "." or unit not in _SECONDS:
            break
        total += float(number) * _SECONDS[unit]
    else:
        if text.strip():
            return total
    raise UsageError(f"invalid duration: '{text}' (write it like 500ms, 10s or 1m30s)")


def parse_moment(text: str) -> int:
    """Nanoseconds since 1970 of a moment in Docker's words: seconds since 1970 (`1136073845.5`), a duration before now
    (`1h30m`), or a day with or without a time and a zone (`2006-01-02T15:04`), the machine's own zone where none is
    given. Raises MinirtError for anything else.
    """
    whole, point, decimals = text.partition(".")
    if whole.isdigit() and text.isascii() and (not point or decimals.isdigit()):
        return int(whole) * 10**9 + int(decimals.ljust(9, "0")[:9])
    try:
        before = parse_duration(text.removeprefix("-"))
        return time.time_ns() - int(before * 1e9) * (-1 if text.startswith("-") else 1)
    except UsageError:
        pass
    day, clock = text[:10], text[10:]
    zone = next((clock[at:] for at, letter in enumerate(clock) if letter in "Zz+-"), "")
    clock, _, decimals = clock[: len(clock) - len(zone)].partition(".")
    form = (day + clock).translate(_DIGITS)  # down to the second, the minute, the hour or the day
    clock += "T00:00:00"[len(clock):]
    try:
        if (form not in ("0000-00-00T00:00:00"[:length] for length in (10, 13, 16, 19))
                or decimals.strip("0123456789") or len(zone) not in (0, 1, 6)):
            raise ValueError
        year, month, date = int(day[:4]), int(day[5:7]), int(day[8:])
        hour, minute, second = int(clock[1:3]), int(clock[4:6]), int(clock[7:])
        if not (1 <= month <= 12 and 1 <= date <= 31 and hour < 24 and minute < 60 and second < 60):
            raise ValueError
        seconds = int(state.parse_time(day + clock + zone) if zone else
                      time.mktime((year, month, date, hour, minute, second, 0, 0, -1)))
    except (ValueError, OverflowError):
        raise MinirtError(f'failed to parse value as time or duration: "{text}"') from None
    return seconds * 10**9 + int(decimals.ljust(9, "0")[:9])
