"""Images for tests, made from this machine's own files, so that a test needs no package and no network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from minirt.images import pack

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAMS = (
    "sh", "cat", "chmod", "cp", "cut", "date", "dd", "df", "echo", "env", "expr", "false", "find", "grep", "head",
    "hostname", "id", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nproc", "printf", "ps", "pwd", "readlink",
    "rm", "rmdir", "sed", "sleep", "sort", "stat", "stty", "sync", "tail", "tee", "test", "touch", "tr", "true", "tty",
    "umount", "uname", "wc", "whoami", "ip", "ipcs", "ipcmk", "seq", "tar", "timeout", "unshare", "vi", "xargs",
)
PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "app:x:1000:1000:app:/home/app:/bin/sh\n"
)
GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nstaff:x:50:app\napp:x:1000:\n"


def static_busybox() -> str:
    """The machine's static busybox, "" when it has none."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path) and not pack.libraries(path):
            return path
    return ""


def busybox_tree(with_busybox: bool = True) -> pack.Tree:
    """A small userland: a static busybox under all its names, or, without one, the machine's own programs."""
    files = pack.Tree()
    box = static_busybox() if with_busybox else ""
    if box:
        files.copy(box, "/bin/busybox")
        for name in PROGRAMS:
            files.symlink(f"/bin/{name}", "busybox")
    else:
        for name in PROGRAMS:
            if source := shutil.which(name, path=PATH):
                files.program(source, f"/bin/{name}")
    for name in ("proc", "sys", "dev", "root", "home/app", "var", "etc"):
        files.directory(name)
    files.directory("tmp", 0o1777)
    files.text("/etc/passwd", PASSWD)
    files.text("/etc/group", GROUP)
    return files


def busybox(path: Path, name: str = "busybox:latest", with_busybox: bool = True) -> Path:
    """Write the archive of an image with a shell and small tools to `path`; return `path`."""
    settings = {"Cmd": ["sh"], "Env": [f"PATH={PATH}"]}
    pack.write_image(str(path), busybox_tree(with_busybox), settings, [name])
    return path
