"""Ground floor: state is files.

What must survive a reboot lies below `root()`, what must not below `run_root()`, always on tmpfs. Three rules make a
killed process harmless: a file is written beside its place, synced and renamed, so it is there whole or not at all;
a name is claimed by exclusive creation; a lock is `flock`, so the kernel gives it back when its holder dies, and
whoever finds a thing without a living creator knows that it is half done.

Nothing here imports more than the interpreter already has: every command pays for what it imports before it does
anything (`import json` alone costs as much as starting a container's process).
"""

from __future__ import annotations

import fcntl
import os
import time

try:
    from _json import encode_basestring as _write
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner as _make_scanner
except ImportError:  # an interpreter without the C accelerator: slower, the same result
    from json.encoder import encode_basestring as _write  # type: ignore[no-redef]
    from json.encoder import encode_basestring_ascii as _quote  # type: ignore[no-redef]
    from json.scanner import make_scanner as _make_scanner  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

    Json = Any


# -- where things lie --------------------------------------------------------------------------------------------

_settled: tuple[str, str] | None = None


def settle() -> None:
    """Keep both directories as they are now, whoever this process becomes: in a user namespace of its own it will be
    root, and root's directories are others (chapter 07)."""
    global _settled
    if _settled is None:
        _settled = (root(), run_root())


def ordinary() -> bool:
    """Whether this process belongs to an ordinary user: one without root's rights on the machine, though he may be root
    in a user namespace of his own by now."""
    return os.geteuid() != 0 or _settled is not None


def root() -> str:
    """The directory of all that survives a reboot, as an absolute path; made when it is missing.

    `MINIRT_ROOT`, else /var/lib/minirt for root and `XDG_DATA_HOME`/minirt for anybody else.
    """
    path = _root_path()
    if not os.path.isdir(path):
        os.makedirs(path, 0o711, exist_ok=True)
    return path


def _root_path() -> str:
    if _settled is not None:
        return _settled[0]
    path = os.environ.get("MINIRT_ROOT")
    if not path:
        if os.geteuid() == 0:
            path = "/var/lib/minirt"
        else:
            path = (os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")) + "/minirt"
    return os.path.abspath(path)


def run_root() -> str:
    """The run directory of that root, on tmpfs: named by the root's device and inode, so two spellings of it agree."""
    path = _run_path(root())
    if path.startswith("/dev/shm/") and _settled is None:  # where anybody may make directories
        base = os.path.dirname(path)
        if not os.path.isdir(base):
            os.mkdir(base, 0o700)
        if os.lstat(base).st_uid != os.geteuid():
            raise PermissionError(1, "it belongs to somebody else: set XDG_RUNTIME_DIR", base)
    if not os.path.isdir(path):
        os.makedirs(path, 0o711, exist_ok=True)
    return path


def run_path() -> str | None:
    """Where the run directory of that root is, or would be; None while the root itself is missing. Makes nothing."""
    try:
        return _run_path(_root_path())
    except FileNotFoundError:
        return None


def _run_path(of: str) -> str:
    if _settled is not None:
        return _settled[1]
    place = os.stat(of)
    user = os.geteuid()
    if user == 0:
        base = "/run/minirt"
    elif os.environ.get("XDG_RUNTIME_DIR"):
        base = os.environ["XDG_RUNTIME_DIR"] + "/minirt"
    elif os.path.isdir(f"/run/user/{user}"):
        base = f"/run/user/{user}/minirt"
    else:  # nobody logged in: `su`, cron, a container
        base = f"/dev/shm/minirt-{user}"
    return f"{base}/{place.st_dev}-{place.st_ino}"


# -- JSON, lean --------------------------------------------------------------------------------------------------

class _Rules:
    """What the C scanner asks of a `json.JSONDecoder`."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__
    memo: dict[str, str] = {}


_scan = _make_scanner(_Rules())  # type: ignore[arg-type]
_SPACE = " \t\n\r"


def loads(text: str | bytes) -> Json:
    """Read one JSON document. Raises ValueError, with the position, when it is none or something follows it."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"not JSON: unexpected character at position {stop.value}") from None
    except SystemError:  # the scanner's own exception belongs to the package json, which is not loaded
        raise ValueError("not JSON: a string, an object or a list is not closed, or misses something") from None
    except RecursionError:
        raise ValueError("not JSON: nested too deeply") from None
    if text[end:].strip(_SPACE):
        raise ValueError(f"not JSON: something follows the document at position {end}")
    return value


def dumps(value: Json, indent: int | None = None, docker: bool = False) -> str:
    """Write dicts, lists, strings, numbers, booleans and None as JSON, on one line or with `indent` spaces a level.
    `docker`: as Docker prints it for people, with no space on that one line, and with letters beyond ASCII."""
    space = "" if docker and indent is None else " "
    return _encode(value, "" if indent is None else "\n", " " * (indent or 0), space, _write if docker else _quote)


def _encode(value: Json, newline: str, step: str, space: str, quote: Callable[[str], str]) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    inner = newline + step if newline else ""
    comma = "," + (inner or space)
    if isinstance(value, dict):
        items = [f"{quote(str(key))}:{space}{_encode(item, inner, step, space, quote)}" for key, item in value.items()]
        return "{" + inner + comma.join(items) + newline + "}" if items else "{}"
    items = [_encode(item, inner, step, space, quote) for item in value]
    return "[" + inner + comma.join(items) + newline + "]" if items else "[]"


# -- files that are there whole or not at all --------------------------------------------------------------------

def sync_directory(path: str) -> None:
    """Make the names in a directory durable (a file's own fsync does not: fsync(2), NOTES)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`, in as many pieces as the kernel takes it. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def write_atomic(path: str, data: bytes, mode: int = 0o644, sync: bool = True) -> None:
    """Replace the file at `path` by one that holds `data`: readers see the old one or the new one, whole.

    With `sync` it is on the disk when this returns. Raises OSError; then the old file stands untouched.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, data)
        if sync:
            os.fsync(descriptor)
        os.close(descriptor)
        descriptor = -1
        os.rename(temporary, path)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        os.unlink(temporary)
        raise
    if sync:
        sync_directory(os.path.dirname(path) or ".")


def write_json(path: str, value: Json, sync: bool = True) -> None:
    """`write_atomic` of a JSON document."""
    write_atomic(path, dumps(value).encode() + b"\n", sync=sync)


def read_file(path: str) -> bytes:
    """The whole content of a file. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_json(path: str) -> Json:
    """The JSON document in a file. Raises OSError, or ValueError that names the file."""
    try:
        return loads(read_file(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


# -- who may, who holds, who lives -------------------------------------------------------------------------------

class Lock:
    """An exclusive flock(2) on a file that is made when missing. The kernel frees it when its last holder is gone.

    A forked child shares the lock through its copy of the descriptor: it must close `fd` when the lock is not its own.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock; with `wait=False` return False at once when somebody else holds it."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink and os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    self.fd = descriptor
                    return True
            except BlockingIOError:
                os.close(descriptor)
                return False
            except FileNotFoundError:
                pass  # the directory went away with the lock's file while we waited: try again, the open will tell
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def locked(path: str) -> bool:
    """Whether somebody holds the lock at `path` right now; a missing file is not locked.

    Asks for a shared lock, so that two who look at the same moment do not take each other for the holder.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def claim(directory: str, name: str, owner: str) -> None:
    """Take `name` in `directory` for `owner`, as a symlink: atomic, readable by `os.readlink`.

    Raises FileExistsError when it is taken.
    """
    os.symlink(owner, f"{directory}/{name}")


def new_id() -> str:
    """A random id of 64 hexadecimal digits, Docker's form."""
    return os.urandom(32).hex()


def boot_id() -> str:
    """The id of this boot of the kernel: pids of an earlier one mean nothing (random(4), boot_id)."""
    return read_file("/proc/sys/kernel/random/boot_id").decode().strip()


def start_time(pid: int) -> int:
    """When a process began, in clock ticks after boot: field 22 of /proc/PID/stat (proc(5)). Raises OSError."""
    stat = read_file(f"/proc/{pid}/stat")
    return int(stat[stat.rindex(b")") + 2:].split()[19])


def identity(pid: int = 0) -> dict[str, Json]:
    """What names a process for good, where a bare pid may be used again: boot id, pid, start time."""
    pid = pid or os.getpid()
    return {"boot": boot_id(), "pid": pid, "start": start_time(pid)}


def alive(who: dict[str, Json]) -> bool:
    """Whether the process that `identity` described still exists (a zombie counts as gone)."""
    try:
        stat = read_file(f"/proc/{who['pid']}/stat")
    except OSError:
        return False
    fields = stat[stat.rindex(b")") + 2:].split()
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == who["start"] and boot_id() == who["boot"]


def pin(directory: str, user: str, target: str) -> None:
    """Say that `user` (an id) uses the thing at `directory`: a symlink pins/USER to the user's own directory.

    `target` is relative to `directory`/pins, or absolute. A pin whose target is gone is void. Raises FileNotFoundError
    when the thing is gone: it is not made again here.
    """
    try:
        os.mkdir(f"{directory}/pins")
    except FileExistsError:
        pass
    try:
        os.symlink(target, f"{directory}/pins/{user}")
    except FileExistsError:
        pass


def unpin(directory: str, user: str) -> None:
    """Take a pin away; nothing happens when there is none."""
    try:
        os.unlink(f"{directory}/pins/{user}")
    except FileNotFoundError:
        pass


def pins(directory: str) -> list[str]:
    """Who uses the thing at `directory`: the names of its pins that do not dangle."""
    try:
        names = os.listdir(f"{directory}/pins")
    except FileNotFoundError:
        return []
    return sorted(name for name in names if os.path.exists(f"{directory}/pins/{name}"))


def at_work(directory: str) -> list[str]:
    """Those of `pins(directory)` who are alive at this moment: to a user's own directory below the root belongs one of
    the same name below the run directory, and whoever lives holds the file `lock` in there.
    """
    homes = {name: os.path.relpath(os.path.realpath(f"{directory}/pins/{name}"), os.path.realpath(root()))
             for name in pins(directory)}
    return [name for name, home in homes.items() if locked(f"{run_root()}/{home}/lock")]


# -- time --------------------------------------------------------------------------------------------------------

def now() -> str:
    """The time as Docker writes it: RFC 3339, UTC, nanoseconds (`2026-01-31T09:05:07.123456789Z`)."""
    return format_time(time.time_ns())


def format_time(nanoseconds: int) -> str:
    """A time in nanoseconds since 1970 in the same form."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time with any number of decimals and any zone. Raises ValueError."""
    try:
        year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
        hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
        rest = text[19:]
        digits = ""
        if rest[:1] == ".":
            digits = rest[1: len(rest) - len(rest[1:].lstrip("0123456789"))]
            rest = rest[1 + len(digits):]
        offset = 0
        if rest not in ("Z", "z"):
            sign = {"+": 1, "-": -1}[rest[0]]
            offset = sign * (int(rest[1:3]) * 3600 + int(rest[4:6]) * 60)
    except (IndexError, KeyError, ValueError):
        raise ValueError(f"not a time: {text!r}") from None
    shifted = year - (month <= 2)
    # Days since 1970 by the civil calendar: March-based years make the leap day the last one.
    days = (365 * shifted + shifted // 4 - shifted // 100 + shifted // 400
            + (153 * ((month + 9) % 12) + 2) // 5 + day - 1 - 719468)
    return days * 86400 + hour * 3600 + minute * 60 + second - offset + (float("0." + digits) if digits else 0.0)
