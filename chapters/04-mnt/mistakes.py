"""What is written instead, in chapter 04, and the message that must lead to each mistake."""

from __future__ import annotations

import ctypes
import os
import stat

from minirt.errors import KernelError
from minirt.kernel import mount, paths, syscalls
from minirt.kernel.paths import EAGAIN, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, _OpenHow
from minirt.namespaces.mnt import CLONE_NEWNS


def open_in_root__tries_everything_again(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """only EAGAIN means `ask again`"""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    for attempt in range(128):
        try:
            return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))
        except OSError:
            if attempt == 127:
                raise
    raise AssertionError("unreachable")


def open_in_root__joins_the_paths(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """An absolute link must start again at the root"""
    return os.open(path.lstrip("/") or ".", flags | os.O_CLOEXEC, mode, dir_fd=root)


def open_in_root__absolute_path(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """must be looked up from the root"""
    return os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=root)


def open_in_root__checks_first(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """An absolute link must start again at the root"""
    top = os.readlink(f"/proc/self/fd/{root}")
    whole = os.path.realpath(top + "/" + path)
    if not whole.startswith(top):
        raise FileNotFoundError(2, os.strerror(2))
    return os.open(whole, flags | os.O_CLOEXEC, mode)


def open_in_root__beneath(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """and not be refused"""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    for attempt in range(128):
        try:
            return syscalls.call("openat2", root, path.lstrip("/"), ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            if error.errno != EAGAIN or attempt == 127:
                raise
    raise AssertionError


def open_in_root__magic_links(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """RESOLVE_NO_MAGICLINKS refuses such links with ELOOP"""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT)
    return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))


def open_in_root__stays_open_on_exec(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """add os.O_CLOEXEC"""
    how = _OpenHow(flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))


def open_in_root__forgets_the_mode(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """hand `mode` on to the kernel"""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))


def open_in_root__asks_once(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """It must ask again"""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))


def open_in_root__asks_for_ever(root: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """must not hold us for ever"""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    while True:
        try:
            return syscalls.call("openat2", root, path, ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            if error.errno != EAGAIN:
                raise


def enter__forgets_private() -> None:
    """and the machine has it now too"""
    syscalls.unshare(CLONE_NEWNS)


def enter__only_the_root() -> None:
    """MS_REC makes the whole tree private"""
    syscalls.unshare(CLONE_NEWNS)
    syscalls.mount(None, "/", None, mount.MS_PRIVATE)


def enter__shared_and_silent() -> None:
    """the mounts are shared still"""
    syscalls.unshare(CLONE_NEWNS)
    try:
        syscalls.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    except OSError:
        pass


def enter__slave() -> None:
    """a slave of the machine's"""
    syscalls.unshare(CLONE_NEWNS)
    syscalls.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)


def enter__private_first() -> None:
    """the order is wrong"""
    syscalls.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    syscalls.unshare(CLONE_NEWNS)


def enter__no_namespace() -> None:
    """you are still in the machine's mount namespace"""
    syscalls.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)


def enter__swallows_the_refusal() -> None:
    """enter() must raise OSError"""
    try:
        syscalls.unshare(CLONE_NEWNS)
        syscalls.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    except OSError:
        pass


def attach__by_path(tree: int, root: int, destination: str) -> None:
    """the mount followed it to a directory of the machine"""
    place = os.readlink(f"/proc/self/fd/{root}") + destination
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(place, exist_ok=True)
    else:
        open(place, "a").close()
    target = os.open(place, os.O_PATH)
    mount.move_mount(tree, target)
    os.close(target)
    os.close(tree)


def attach__place_must_exist(tree: int, root: int, destination: str) -> None:
    """the place must be made first"""
    target = paths.open_in_root(root, destination, os.O_PATH)
    mount.move_mount(tree, target)
    os.close(target)
    os.close(tree)


def attach__always_a_directory(tree: int, root: int, destination: str) -> None:
    """a file can only be mounted on a file"""
    target = paths.make_mount_point(root, destination, True)
    mount.move_mount(tree, target)
    os.close(target)
    os.close(tree)


def attach__leaves_the_tree_open(tree: int, root: int, destination: str) -> None:
    """close it when it is attached"""
    target = paths.make_mount_point(root, destination, stat.S_ISDIR(os.fstat(tree).st_mode))
    mount.move_mount(tree, target)
    os.close(target)


def attach__leaves_the_place_open(tree: int, root: int, destination: str) -> None:
    """close that of the place as well"""
    target = paths.make_mount_point(root, destination, stat.S_ISDIR(os.fstat(tree).st_mode))
    mount.move_mount(tree, target)
    os.close(tree)


def attach__makes_the_place_only(tree: int, root: int, destination: str) -> None:
    """nothing is mounted on /data"""
    os.close(paths.make_mount_point(root, destination, stat.S_ISDIR(os.fstat(tree).st_mode)))
    os.close(tree)


def make_node__by_path(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0,
                       gid: int = 0) -> None:
    """the node was made in a directory of the machine"""
    whole = f"/proc/self/fd/{root}{path}"
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    types = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    try:
        os.mknod(whole, types[kind] | mode, os.makedev(major, minor))
    except FileExistsError:
        return
    os.chown(whole, uid, gid)


def make_node__both_or_none(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0,
                            gid: int = 0) -> None:
    """changed unless both are 0"""
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    types = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    try:
        os.mknod(name, types[kind] | mode, os.makedev(major, minor), dir_fd=directory)
        if uid and gid:
            os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        pass
    finally:
        os.close(directory)


def make_node__closed_if_all_is_well(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0,
                                     gid: int = 0) -> None:
    """close it in `finally:`"""
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    types = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    try:
        os.mknod(name, types[kind] | mode, os.makedev(major, minor), dir_fd=directory)
    except FileExistsError:
        os.close(directory)
        return
    if uid or gid:
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    os.close(directory)


def make_node__no_kind(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0,
                       gid: int = 0) -> None:
    """no character device"""
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    os.mknod(name, mode, os.makedev(major, minor), dir_fd=directory)
    os.close(directory)


def make_node__numbers_exchanged(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0,
                                 gid: int = 0) -> None:
    """the node has the numbers (3, 1)"""
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    os.mknod(name, stat.S_IFCHR | mode, os.makedev(minor, major), dir_fd=directory)
    os.close(directory)


def make_node__always_a_character_device(root: int, path: str, kind: str, major: int, minor: int, mode: int,
                                         uid: int = 0, gid: int = 0) -> None:
    """the letter 'b' means 'b'"""
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    os.mknod(name, stat.S_IFCHR | mode, os.makedev(major, minor), dir_fd=directory)
    os.close(directory)


def make_node__forgets_the_owner(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0,
                                 gid: int = 0) -> None:
    """12:34 was asked for"""
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    types = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    os.mknod(name, types[kind] | mode, os.makedev(major, minor), dir_fd=directory)
    os.close(directory)


def make_node__existing_is_an_error(root: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int = 0,
                                    gid: int = 0) -> None:
    """nothing is to be done then"""
    parent, _, name = path.rpartition("/")
    directory = paths.make_directories(root, parent)
    types = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    try:
        os.mknod(name, types[kind] | mode, os.makedev(major, minor), dir_fd=directory)
        os.chown(name, uid, gid, dir_fd=directory)
    finally:
        os.close(directory)


def mask__null_over_everything(root: int, path: str) -> None:
    """Cover it with an empty tmpfs"""
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    cover = mount.clone("/dev/null")
    mount.move_mount(cover, target)
    os.close(cover)
    os.close(target)


def mask__no_error_is_worth_a_word(root: int, path: str) -> None:
    """only what does not exist"""
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except OSError:
        return
    if stat.S_ISDIR(os.fstat(target).st_mode):
        cover = mount.filesystem("tmpfs", {"nr_blocks": "1"}, ("ro", "nosuid", "nodev", "noexec"))
    else:
        cover = mount.clone("/dev/null")
        if os.fstat(cover).st_rdev != os.makedev(1, 3):
            raise KernelError("that is not the null device")
    mount.move_mount(cover, target)
    os.close(cover)
    os.close(target)


def mask__missing_is_an_error(root: int, path: str) -> None:
    """there is nothing to hide then"""
    target = paths.open_in_root(root, path, os.O_PATH)
    if stat.S_ISDIR(os.fstat(target).st_mode):
        cover = mount.filesystem("tmpfs", {}, ("ro",))
    else:
        cover = mount.clone("/dev/null")
    mount.move_mount(cover, target)
    os.close(cover)
    os.close(target)


def mask__writable_tmpfs(root: int, path: str) -> None:
    """the word "ro" is missing"""
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    cover = mount.filesystem("tmpfs", {}) if stat.S_ISDIR(os.fstat(target).st_mode) else mount.clone("/dev/null")
    mount.move_mount(cover, target)
    os.close(cover)
    os.close(target)


def mask__the_images_null(root: int, path: str) -> None:
    """use the machine's /dev/null"""
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(os.fstat(target).st_mode):
        cover = mount.filesystem("tmpfs", {}, ("ro",))
    else:
        try:
            null = paths.open_in_root(root, "/dev/null", os.O_PATH)
        except FileNotFoundError:
            null = os.open("/dev/null", os.O_PATH)
        cover = mount.clone("", null)
        os.close(null)
    mount.move_mount(cover, target)
    os.close(cover)
    os.close(target)


def mask__does_not_check(root: int, path: str) -> None:
    """compare st_rdev of what was opened"""
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(os.fstat(target).st_mode):
        cover = mount.filesystem("tmpfs", {}, ("ro",))
    else:
        cover = mount.clone("/dev/null")
    mount.move_mount(cover, target)
    os.close(cover)
    os.close(target)


def mask__by_path(root: int, path: str) -> None:
    """the mask went to a file of the machine"""
    whole = os.readlink(f"/proc/self/fd/{root}") + path
    if os.path.isdir(whole):
        syscalls.mount("tmpfs", whole, "tmpfs", 1)
    elif os.path.exists(whole):
        if os.stat("/dev/null").st_rdev != os.makedev(1, 3):
            raise KernelError("not the null device")
        syscalls.mount("/dev/null", whole, None, mount.MS_BIND)


def mask__leaves_them_open(root: int, path: str) -> None:
    """close the cover and the place"""
    try:
        target = paths.open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(os.fstat(target).st_mode):
        cover = mount.filesystem("tmpfs", {}, ("ro",))
    else:
        cover = mount.clone("/dev/null")
        if os.fstat(cover).st_rdev != os.makedev(1, 3):
            raise KernelError("not the null device")
    mount.move_mount(cover, target)


def pivot__chroot(root: int) -> None:
    """chroot(2) only changes where / points"""
    os.fchdir(root)
    os.chroot(".")
    os.chdir("/")


def pivot__leaves_the_old_root_on_top(root: int) -> None:
    """the old root is still mounted"""
    os.fchdir(root)
    syscalls.call("pivot_root", ".", ".")
    os.chroot(".")
    os.chdir("/")


def pivot__keeps_the_old_root_below(root: int) -> None:
    """the old root is still mounted below /.old"""
    os.fchdir(root)
    os.makedirs(".old", exist_ok=True)
    syscalls.call("pivot_root", ".", ".old")
    os.chdir("/")


def pivot__unmounts_at_once(root: int) -> None:
    """unmount the old one with MNT_DETACH"""
    os.fchdir(root)
    syscalls.call("pivot_root", ".", ".")
    syscalls.umount2(".")
    os.chdir("/")


def pivot__does_not_go_there(root: int) -> None:
    """Go to the new root first"""
    syscalls.call("pivot_root", ".", ".")
    syscalls.umount2(".", mount.MNT_DETACH)
    os.chdir("/")


def pivot__only_goes_there(root: int) -> None:
    """after pivot() the root directory holds"""
    os.fchdir(root)


def pivot__falls_back_to_chroot(root: int) -> None:
    """a directory that is no mount cannot become the root"""
    os.fchdir(root)
    try:
        syscalls.call("pivot_root", ".", ".")
        syscalls.umount2(".", mount.MNT_DETACH)
    except OSError:
        os.chroot(".")
    os.chdir("/")
