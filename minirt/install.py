"""The tool itself: how a checkout becomes a command that starts fast.

`python -m minirt.install checkout` makes `.venv/bin/minirt` of this checkout; `system` copies the package below a
prefix (/usr/local) and makes its launcher, its completion and its manual page; `remove` takes all of that away again.

A good part of what a short command costs in Python is finding modules: for each one the interpreter looks through its
directories, checks the source's date, opens and reads. So an installed minirt carries its compiled modules in one
*bundle*, a file with an index: a module is one read at a known place. What a hot command is known to need next lies
there once more in one *piece*, and is loaded at a stroke. The launcher is a script of a dozen lines, run by an
interpreter that ignores the user's environment and imports no `site` (`-I -S`). A checkout's launcher reads its own
modules as plain files, because they change; its bundle holds only what it borrows from the standard library, so it
cannot be out of date.

A bundle belongs to one interpreter. When that has been replaced by another version, the launcher sees it and imports
plain files: slower, and still right. A bundle is never changed: each version of minirt lies in a directory named after
its content, and the one before stays when the next is installed, because the monitors of running containers may still
import from it.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.util
import marshal
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import CodeType

# What a command borrows from the standard library on its way, and an interpreter does not already carry inside itself.
BORROWED = ("__future__", "ctypes", "ctypes._endian", "struct", "types")
# Whoever imports the first will want the others next, and what all of them import.
PIECES = {
    "minirt.__main__": ("minirt.state", "minirt.cli.main"),
    "minirt.containers.birth": (),
    "minirt.cli.run": ("minirt.containers.client", "minirt.containers.create", "minirt.containers.files",
                       "minirt.containers.names", "minirt.images.ready"),
    "minirt.containers.monitor": (),
    "minirt.containers.traffic": ("minirt.containers.repair",),
    "minirt.seccomp.compiler": ("minirt.seccomp.policy",),
    "minirt.cli.exec": ("minirt.containers.execute", "minirt.containers.values"),
}
# What `requests` consists of; isal inflates layers twice as fast, where somebody has installed it.
LIBRARY = ("requests", "urllib3", "certifi", "idna", "charset_normalizer", "chardet", "isal")
LAUNCHER = '''\
#!{interpreter} -IS
# minirt's launcher, made by `{made_by}`: the sources lie in {home}
import sys
from marshal import loads
sys.path += {path!r}
{bytecode}
try:
    with open({bundle!r}, "rb", 0) as file:
        version, finder, modules, pieces, extensions = loads(file.read({index}))
    if version == sys.version:
        exec(finder, {{"bundle": {bundle!r}, "modules": modules, "pieces": pieces, "extensions": extensions}})
except (OSError, ValueError, EOFError):
    pass  # no bundle, or not this interpreter's: the same modules as plain files
from minirt.__main__ import main
sys.exit(main())
'''
# Root must not leave files of its own in a user's checkout; the owner may keep compiled modules there.
BYTECODE_OF_A_CHECKOUT = '''\
from posix import geteuid, stat
sys.dont_write_bytecode = stat({home!r}).st_uid != geteuid()'''
BYTECODE_OF_AN_INSTALLATION = "sys.dont_write_bytecode = True"

# Runs once, out of the bundle, with `modules` {name: (directory of a package or "", file, offset, size)}, `pieces`
# {name: (offset, size)} and `extensions` {name: file}.
FINDER = '''\
import posix
import sys
from marshal import loads
from _frozen_importlib import ModuleSpec, module_from_spec
from _frozen_importlib_external import ExtensionFileLoader

def read(offset, size):
    descriptor = posix.open(bundle, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return loads(posix.pread(descriptor, size, offset))
    finally:
        posix.close(descriptor)

def load_piece(name):
    for each, code in read(*pieces.pop(name)):
        if each not in sys.modules:
            module = sys.modules[each] = module_from_spec(Bundle.find_spec(each))
            module.__file__ = modules[each][1]
            exec(code, module.__dict__)
            parent, _, last = each.rpartition(".")
            if parent:
                setattr(sys.modules[parent], last, module)

class Bundle:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in modules:
            directory, file, _, _ = modules[name]
            spec = ModuleSpec(name, Bundle, origin=file, is_package=bool(directory))
            if directory:
                spec.submodule_search_locations.append(directory)
            return spec
        if name in extensions:
            file = extensions[name]
            return ModuleSpec(name, ExtensionFileLoader(name, file), origin=file)
        return None

    @staticmethod
    def create_module(spec):
        if spec.name in pieces:
            load_piece(spec.name)
        return None

    @staticmethod
    def exec_module(module):
        _, module.__file__, offset, size = modules[module.__name__]
        exec(read(offset, size), module.__dict__)

sys.meta_path.insert(0, Bundle)
'''


def make_bundle(target: Path, package: Path | None) -> int:
    """Write the bundle of this interpreter to `target`.

    `package` is the directory of minirt's modules to put into it, or None for the borrowed ones alone. Returns the size
    of its index in bytes. Raises OSError, or SyntaxError when a module of minirt does not compile.
    """
    found: dict[str, tuple[str, str, CodeType]] = {}
    for name in BORROWED:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin and spec.origin.endswith(".py"):
            directory = os.path.dirname(spec.origin) if spec.submodule_search_locations else ""
            found[name] = directory, spec.origin, _compiled(Path(spec.origin))
    for file in sorted(package.rglob("*.py")) if package else []:
        parts = list(file.relative_to(package.parent).with_suffix("").parts) if package else []
        directory = ""
        if parts[-1] == "__init__":
            directory = str(file.parent)
            parts.pop()
        found[".".join(parts)] = directory, str(file), _compiled(file)
    dynload = Path(sysconfig.get_path("platstdlib")) / "lib-dynload"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    extensions = {file.name.removesuffix(suffix): str(file) for file in dynload.glob("*" + suffix)}
    finder = compile(FINDER, "<minirt's bundle>", "exec", dont_inherit=True)
    pieces = {leader: marshal.dumps([(name, found[name][2]) for name in names])
              for leader, names in (_pieces(package.parent) if package else {}).items()}
    alone = {name: marshal.dumps(code) for name, (_, _, code) in found.items()}

    def index(start: int) -> bytes:
        places, piece_places = {}, {}
        for name, (directory, file, _) in found.items():
            places[name] = directory, file, start, len(alone[name])
            start += len(alone[name])
        for name, piece in pieces.items():
            piece_places[name] = start, len(piece)
            start += len(piece)
        return marshal.dumps((sys.version, finder, places, piece_places, extensions))

    first = index(1 << 16)      # a number takes five bytes whatever its value, so the size is right the first time
    size = len(first)
    first = index(size)
    assert len(first) == size
    _replace(target, b"".join((first, *alone.values(), *pieces.values())), 0o644)
    return size


def _pieces(home: Path) -> dict[str, list[str]]:
    """For each of PIECES our modules that come with its first one, in the order in which one needs the other.

    A fresh interpreter imports them all and tells (`-X importtime`) in which order they were ready.
    """
    order = [name for leader, others in PIECES.items() for name in (*others, leader)]
    program = f"import sys; sys.path.append({str(home)!r}); import {', '.join(order)}"
    told = subprocess.run([interpreter(), "-X", "importtime", "-ISBc", program], capture_output=True, text=True,
                          check=True).stderr
    ready = [name for line in told.splitlines() if (name := line.rpartition("|")[2].strip()).startswith("minirt")]
    pieces, start = {}, 0
    for leader in PIECES:
        end = ready.index(leader)
        pieces[leader] = ready[start:end]
        start = end + 1
    return pieces


def _compiled(file: Path) -> CodeType:
    # Without docstrings and assertions (as -OO): half the bytes to read at each start, and nobody reads them there.
    code: CodeType = compile(file.read_bytes(), str(file), "exec", dont_inherit=True, optimize=2)
    return code


def _replace(target: Path, content: bytes, mode: int) -> None:
    """Write beside the target and rename: a command that starts meanwhile sees the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.rename(target)


def interpreter() -> str:
    """The real interpreter below a virtual environment or a link: starting it directly saves reading pyvenv.cfg."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _launcher(target: Path, made_by: str, *, home: Path, bundle: Path, index: int, path: list[str],
              bytecode: str) -> None:
    text = LAUNCHER.format(interpreter=interpreter(), home=home, bundle=str(bundle), index=index, path=path,
                           bytecode=bytecode, made_by=made_by)
    _replace(target, text.encode(), 0o755)


def install_checkout(checkout: Path, environment: Path) -> None:
    """Make `environment`/bin/minirt run the modules of `checkout`, and make `import minirt` work in there."""
    compileall.compile_dir(checkout / "minirt", quiet=1)
    compileall.compile_dir(checkout / "chapters", quiet=1)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = environment / "lib" / version / "site-packages"
    _replace(packages / "minirt-checkout.pth", f"{checkout}\n".encode(), 0o644)
    bundle = environment / "lib" / f"minirt-{_digest([sys.version.encode()])}.bundle"
    _launcher(environment / "bin" / "minirt", "make hello", home=checkout, bundle=bundle,
              index=make_bundle(bundle, None), path=[str(checkout), str(packages)],
              bytecode=BYTECODE_OF_A_CHECKOUT.format(home=str(checkout)))


def _digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def install_system(checkout: Path, prefix: Path) -> None:
    """Copy minirt below `prefix` and make its launcher, completion and manual page there."""
    sources = [file for file in sorted((checkout / "minirt").rglob("*")) if file.suffix != ".pyc" and file.is_file()]
    version = _digest([sys.version.encode(), *(part for file in sources for part in (bytes(file), file.read_bytes()))])
    home = prefix / "lib" / "minirt" / version
    launcher = prefix / "bin" / "minirt"
    before = launcher.read_text() if launcher.exists() else ""
    for other in home.parent.iterdir() if home.parent.is_dir() else ():
        if str(other) not in before or other == home:
            shutil.rmtree(other)
    shutil.copytree(checkout / "minirt", home / "minirt", ignore=shutil.ignore_patterns("__pycache__"))
    copy_library(checkout, home / "borrowed")
    for path in [home.parent, home, *home.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    compileall.compile_dir(home, quiet=1)
    bundle = home / "minirt.bundle"
    _launcher(launcher, "make install", home=home, bundle=bundle, index=make_bundle(bundle, home / "minirt"),
              path=[str(home)], bytecode=BYTECODE_OF_AN_INSTALLATION)
    _, _, completion, page = installed_files(prefix)
    done = subprocess.run([prefix / "bin" / "minirt", "completion", "bash"], capture_output=True, check=False)
    if done.returncode == 0:
        _replace(completion, done.stdout, 0o644)
    sys.path.insert(0, str(home))
    _replace(page, manual().encode(), 0o644)


def copy_library(checkout: Path, target: Path) -> None:
    """Copy `requests`, and what it needs, from this interpreter or the checkout's environment to `target`, where only
    what speaks with registries will look. Without it minirt works all the same, and says at a pull what is missing."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = [sysconfig.get_path("purelib"), "/usr/lib/python3/dist-packages",
              str(checkout / ".venv" / "lib" / version / "site-packages")]
    source = next((Path(place) for place in places if (Path(place) / "requests" / "__init__.py").exists()), None)
    if source is None:
        print("pull, push and login will need Python's library requests: apt install python3-requests, or "
              "dnf install python3-requests", file=sys.stderr)
        return
    for name in LIBRARY:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


def manual() -> str:
    """The manual page minirt(1), for man(1): the commands and their options, from the tables that parse them."""
    from minirt.cli import main as commands

    parts = [".TH MINIRT 1", ".SH NAME", "minirt \\- Docker, rebuilt one piece at a time in Python", ".SH SYNOPSIS",
             ".B minirt", "[\\-\\-explain]", ".I COMMAND", "[ARG...]", ".SH COMMANDS"]
    for _, rows in commands.SUMMARIES:
        for name, _ in rows:
            command = commands.load(name)
            if command:
                parts += [f".SS {name}", ".nf", _literal(command.help()), ".fi"]
    parts += [".SH FILES", ".TP", "/var/lib/minirt", "images and containers; MINIRT_ROOT names another directory",
              ".SH EXIT STATUS", "The container's own; 125 when minirt refuses, 126 when the command cannot be",
              "invoked, 127 when it is not found, 128+n when signal n ended it."]
    return "\n".join(parts) + "\n"


def _literal(text: str) -> str:
    """Text that roff leaves as it is: a backslash, or a dot or quote that begins a line, mean something to it."""
    lines = text.rstrip().replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join("\\&" + line if line[:1] in (".", "'") else line for line in lines)


def installed_files(prefix: Path) -> list[Path]:
    """Every place below `prefix` that an installation writes to."""
    return [prefix / "bin" / "minirt", prefix / "lib" / "minirt",
            prefix / "share" / "bash-completion" / "completions" / "minirt",
            prefix / "share" / "man" / "man1" / "minirt.1"]


def remove_program(prefix: Path) -> None:
    """Remove what `install_system` made; what is not there is no error."""
    for path in installed_files(prefix):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_state() -> None:
    """Remove all containers and images of root: /var/lib/minirt, /run/minirt and the branch in the cgroup tree.

    Raises SystemExit, with nothing removed, while a container still runs (a process is in that branch).
    """
    branches = [path for path in (*Path("/sys/fs/cgroup").glob("minirt"), *Path("/sys/fs/cgroup").glob("*/minirt"))]
    for branch in branches:
        for members in branch.rglob("cgroup.procs"):
            if members.read_text().strip():
                raise SystemExit(f"container {members.parent.name[:12]} still runs: minirt stop it first")
    for place in ("/var/lib/minirt", "/run/minirt"):
        shutil.rmtree(place, ignore_errors=True)
    for branch in branches:
        for directory, _, _ in os.walk(branch, topdown=False):
            os.rmdir(directory)


def main(arguments: list[str]) -> int:
    """checkout ENVIRONMENT | system PREFIX | remove PREFIX [keep]"""
    checkout = Path(__file__).resolve().parent.parent
    match arguments:
        case ["checkout", environment]:
            install_checkout(checkout, Path(environment).absolute())
        case ["system", prefix]:
            os.umask(0o022)     # whoever installs with a strict one must not lock other users out
            install_system(checkout, Path(prefix).absolute())
        case ["remove", prefix, *keep]:
            if not keep:
                remove_state()
            remove_program(Path(prefix).absolute())
        case _:
            print(f"usage: python -m minirt.install {main.__doc__}", file=sys.stderr)
            return 125
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
