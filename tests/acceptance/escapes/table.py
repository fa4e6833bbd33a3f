"""The published ways out of a container, as data: what is tried, who found it, the wall that stops it, the control.

A *control* is the same attack on the same container with that one wall taken away: it must succeed, or a green row
would only prove that the attack was written badly. Each row has a test of its name in `test_escapes.py`. The page
`chapters/escapes.md` is made of this table:

    python -m tests.acceptance.escapes.table > chapters/escapes.md
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Escape:
    """One row. `open` is empty where the attack is stopped in every form tried, else what of it is not stopped."""

    name: str
    attack: str
    source: str
    wall: str
    chapter: int
    control: str
    open: str = ""


PARTS: dict[str, tuple[Escape, ...]] = {
    "The tree of files": (
        Escape("chroot", "chroot below the working directory, then climb by `..`",
               "chroot(2), NOTES", "pivot_root, and the old root is detached: above `/` there is nothing", 4,
               "chroot in place of pivot_root: a file of the machine is read"),
        Escape("mount_target_link", "the image has a symlink that leads out where a volume shall be mounted",
               "CVE-2021-30465, CVE-2019-19921", "the place is opened with openat2, RESOLVE_IN_ROOT", 4,
               "the same place opened by path: the directory is made on the machine"),
        Escape("mount_target_race", "another process exchanges a directory and a symlink while the place is opened",
               "CVE-2021-30465, CVE-2023-27561", "one call resolves and opens; from then on only the descriptor", 4,
               "check first, then open by path: some of the tries end on the machine"),
        Escape("proc_is_a_link", "the image's `/proc` is a symlink, so that masks may be laid beside it",
               "CVE-2019-19921, CVE-2023-27561", "mount and masks go to what the link means within the root", 4,
               "none: the wall is that both use the same call, which `mount_target_link` takes away"),
        Escape("null_is_replaced", "`/dev/null` is a symlink by the time that it is laid over what is to be masked",
               "CVE-2025-31133", "the mask is the machine's own /dev/null, checked to be the device 1:3", 4,
               "the container's /dev/null as mask: what it links to appears in place of the masked file"),
        Escape("console_is_replaced", "`/dev/console` or the pty beneath it is a symlink when it is mounted",
               "CVE-2025-52565", "the slave comes from the pty itself, the place is opened within the root", 12,
               "the place opened by path: a file is made on the machine"),
        Escape("proc_write_redirected", "what is written to a file of /proc arrives at another one",
               "CVE-2025-52881", "what is set through /proc is set before the container's root is entered", 12,
               "the same write once /proc is the container's: its symlink is followed"),
        Escape("working_directory", "`-w /proc/self/fd/N`, of run and exec, and an image's symlink to it",
               "CVE-2024-21626", "all descriptors but four are closed; magic links are refused", 12,
               "descriptors stay open and the directory is entered by path: a file of the machine is read"),
        Escape("mount_over_proc", "a volume over `/proc` or in it: what is set and hidden there would be a stranger's",
               "CVE-2019-16884, CVE-2019-19921", "such a mount is refused; a setting goes only to the kernel's file", 4,
               "the same mount in a specification of one's own: /proc is what the attacker says"),
        Escape("open_by_handle_at", "guess the handle of a file and open it through a bind mount (shocker)",
               "open_by_handle_at(2); Krahmer, 2014", "no CAP_DAC_READ_SEARCH, and the filter", 10,
               "`--cap-add DAC_READ_SEARCH`: a file outside the volume is read"),
    ),
    "The program that starts programs": (
        Escape("exe_of_run", "the command is a script of `#!/proc/self/exe`: the runtime runs it, and lies open",
               "CVE-2019-5736", "the last exec goes through a sealed program in memory", 12,
               "exec straight from Python: the machine's interpreter runs the script"),
        Escape("exe_of_exec", "the same by exec, with another process on the watch, with and without SYS_PTRACE",
               "CVE-2019-5736, CVE-2016-9962",
               "no Python process is ever in there: the sealed program forks, its child is the first", 12,
               "a child forked by Python executes the script: the machine's interpreter runs it"),
        Escape("exe_of_init",
               "/proc/1/exe and the memory of the init of `--init`, with SYS_PTRACE, also from a second container",
               "CVE-2019-5736",
               "the init is a piece of the sealed program too, with the container's own rights", 12,
               "the init of chapter 03, which is Python: its file is open to the container"),
        Escape("python_imports", "modules in the image at the place of the machine's standard library",
               "Python documentation, the import system", "nothing can be imported once the root is the image's", 12,
               "the same import with the finders in place: the image's module runs as root"),
        Escape("python_codecs", "a text encoding that is not loaded yet is looked for in the image",
               "Python documentation, codecs", "the codecs' search goes through the same locked import", 12,
               "the same look-up with the finders in place: the image's codec runs as root"),
        Escape("python_traceback", "an error inside the root: Python would print source lines, from the image's files",
               "Python documentation, traceback", "an error becomes a sentence without reading any file", 12,
               "Python's own traceback: the line comes from the image"),
        Escape("name_services", "the image's nsswitch.conf names a module of its own for user names",
               "nsswitch.conf(5)", "passwd and group are opened within the root and split by hand", 12,
               "getpwnam: the image's library is loaded as root"),
    ),
    "The kernel's own files": (
        Escape("core_pattern", "name a program for the kernel to run on the machine when something crashes",
               "core(5)", "/proc/sys is read-only", 4, "without read-only paths: the file opens for writing"),
        Escape("sysrq_trigger", "reboot or crash the machine by one letter", "kernel documentation, sysrq.rst",
               "/proc/sysrq-trigger is read-only", 4,
               "without read-only paths: the file opens for writing, where the kernel has it"),
        Escape("masked_files", "read /proc/kcore, /proc/keys, /proc/timer_list; look into /sys/firmware",
               "OCI runtime-spec; GHSA-6fw5-f8r9-fgfm", "a null device or an empty directory lies over them", 4,
               "without masks: they have content"),
        Escape("release_agent", "mount the control groups and name a program to run when one is empty",
               "CVE-2022-0492; Felix Wilhelm, 2019", "no CAP_SYS_ADMIN, and the filter refuses mount", 10,
               "`--cap-add SYS_ADMIN`: the hierarchy is mounted and writable"),
        Escape("masks_taken_off", "as root of a user namespace of one's own, unmount the masks, or mount a new /proc",
               "mount_namespaces(7), Restrictions", "the kernel locks what came from outside together", 4,
               "`--security-opt systempaths=unconfined`: a new /proc can be mounted, for nothing was hidden"),
        Escape("kernel_log", "read the kernel's log: addresses, devices, what others do", "syslog(2), CAP_SYSLOG",
               "no CAP_SYSLOG, and the filter", 10, "`--cap-add SYSLOG`: it is read"),
        Escape("sysfs_files", "write to the files of /sys, of which one names a program to run on the machine",
               "kernel documentation, uevent_helper", "/sys is read-only", 4,
               "`--privileged`: a file opens for writing"),
        Escape("cgroup_files", "write to the control groups that are mounted already, to lift the own limit",
               "cgroups(7)", "/sys/fs/cgroup is read-only", 8, "`--privileged`: a group can be made"),
        Escape("cgroup_namespace", "learn from /proc/self/cgroup where on the machine one is",
               "cgroup_namespaces(7)", "a cgroup namespace: the own group is `/`", 8,
               "`--cgroupns host`: the path on the machine is shown"),
        Escape("device_nodes", "mknod the machine's disk, its log, /dev/fuse and open them",
               "capabilities(7), CAP_MKNOD", "the list of devices of the control group", 8,
               "`--device-cgroup-rule` for one of them: it opens"),
        Escape("exec_privileged", "with all capabilities in an ordinary container, make and open a disk, and mount",
               "Docker's documentation of exec", "the container's list of devices and its filter stay", 8,
               "`run --privileged`: the device opens, and a file system is mounted"),
        Escape("keyrings", "find a key of the machine's root: keyrings belong to users, not to containers",
               "keyrings(7); CVE-2016-0728", "the filter refuses keyctl; /proc/keys is masked", 11,
               "`--security-opt seccomp=unconfined`: the secret is read"),
    ),
    "Other processes": (
        Escape("signals", "signal a process of the machine by its pid", "pid_namespaces(7)",
               "a pid namespace: there is no such number", 3, "`--pid host`: the process ends"),
        Escape("ptrace", "read the memory of a process of the machine", "ptrace(2), process_vm_readv(2)",
               "a pid namespace: there is no such number", 3, "`--pid host --privileged`: it is attached"),
        Escape("joined_pid_namespace", "with `--pid container:NAME`, look for processes of the machine",
               "found in minirt itself", "the process is born in that namespace, not moved there", 3,
               "a clone that stays where its parent is: the machine's processes are seen"),
        Escape("files_of_processes", "with `--pid host`, walk through /proc/PID/root of a process of the machine",
               "ptrace(2), Ptrace access mode checking", "the other process has capabilities that one lacks", 10,
               "`--privileged`: a file of the machine is read"),
        Escape("shared_memory", "find what another container keeps in shared memory", "shm_overview(7)",
               "its memory is its own unless it was made shareable", 5,
               "`--ipc shareable` for the one, `--ipc container:NAME` for the other: it is read"),
        Escape("log_forged", "print a line that looks like one of the log's own, with another time and stream",
               "CWE-117", "the log escapes whatever it is given", 17,
               "the same line written as it is: it is taken for one of the log's own"),
        Escape("newcomer", "with SYS_PTRACE, look at another container that comes in by `--pid container:NAME`",
               "CVE-2016-9962", "it builds its walls outside; what goes in is the sealed program, with no more rights",
               12, "built by Python within the namespace: its file is open, and it has the machine's root's rights"),
        Escape("abstract_sockets", "connect to a socket of the machine that has a name and no file",
               "CVE-2020-15257", "a network namespace; minirt itself listens on none", 6,
               "`--network host`: connected"),
        Escape("tiocsti", "type into the terminal of whoever started the container", "CVE-2016-2568, CVE-2023-28339",
               "pipes or a pty of its own, and a session of its own", 12,
               "the caller's terminal and session handed in: the line is typed"),
    ),
    "Rights": (
        Escape("user_namespaces", "become root with all capabilities in a user namespace of one's own",
               "user_namespaces(7); CVE-2022-0185", "the filter refuses unshare, clone and clone3 with new namespaces",
               11, "`--security-opt seccomp=unconfined`: a map is written, and all capabilities are there"),
        Escape("priority", "run before everything else on the machine", "setpriority(2), sched(7)",
               "no CAP_SYS_NICE", 10, "`--cap-add SYS_NICE`: granted"),
        Escape("hypervisor_sockets", "speak to the hypervisor, which may take it for the machine's own voice",
               "vsock(7)", "the filter refuses sockets of that family", 11,
               "`--security-opt seccomp=unconfined`: the kernel makes one, or knows no such family"),
        Escape("setuid", "a set-user-id program of the image, run by a user who asked for no new privileges",
               "prctl(2), PR_SET_NO_NEW_PRIVS", "`--security-opt no-new-privileges`", 10,
               "without the option: the effective user is root"),
        Escape("inheritable", "gain capabilities by the inheritable set of a file",
               "CVE-2022-24769, CVE-2022-29162", "the inheritable set is empty", 10,
               "with an inheritable set: the program of an ordinary user has the capability"),
        Escape("groups", "lose a group that a file denies, by a set-group-id program", "CVE-2022-36109",
               "the main group is listed among the additional ones", 12,
               "none: it is a property of a list, compared as it is"),
        Escape("i386_calls", "the same call under the number that it has for 32-bit programs (`int 0x80`)",
               "seccomp(2), Caveats", "the filter has a table for each architecture", 11,
               "`--security-opt seccomp=unconfined`: the call is made"),
        Escape("x32_calls", "the same call with the bit that marks the x32 way of calling",
               "seccomp(2), Caveats", "the filter has a table for each architecture", 11,
               "without a filter: the call is made, or the kernel knows no x32"),
        Escape("forbidden_calls", "bpf, userfaultfd, io_uring, perf_event_open, kexec_load, fsopen and others",
               "CVE-2022-0185, CVE-2021-3490, CVE-2022-29582", "the filter says EPERM before the kernel looks", 11,
               "`--security-opt seccomp=unconfined`: the kernel looks at the arguments"),
    ),
}
ROWS = tuple(row for part in PARTS.values() for row in part)


def page() -> str:
    """The page `chapters/escapes.md`."""
    lines = [INTRODUCTION.strip(), ""]
    for title, rows in PARTS.items():
        lines += [f"## {title}", "", "| attack | source | the wall | without it | result |", "|---|---|---|---|---|"]
        for row in rows:
            result = f"stopped; open: {row.open}" if row.open else "stopped"
            wall = f"{row.wall} (chapter {row.chapter:02d})"
            lines.append(f"| {row.attack} | {row.source} | {wall} | {row.control} | {result} |")
        lines.append("")
    lines += [END.strip(), ""]
    return "\n".join(lines)


INTRODUCTION = """
# Ways out, and what stops them

Is a container a safe place for a program that you do not trust? People have found ways out of every container runtime.
Most ways are known by a number, so they can be tried. That is what this page lists: each attack was run against
`minirt run` and `minirt exec`, or against the function beneath them with the same walls, and did not get out.

An attack that fails proves little: it may have been written badly. So each one has a **control**: the same attack on
the same container with one wall taken away. There it must succeed. The column "without it" says what happens then, or
why there is nothing to compare with.

<!-- Made by tests/acceptance/escapes/table.py: change the table there. -->
"""
END = """
## What the table does not say

A container shares the kernel with the machine. A mistake in the kernel itself may open a way that no wall of this page
stops; the filter of chapter 11 only makes the part of the kernel smaller that a container can reach. And walls can be
taken away by whoever starts a container: `--privileged` takes nearly all of them, a bind mount of `/` the one that
counts. To try an attack yourself, read its test in `tests/acceptance/escapes/test_escapes.py`, and run it:

    .venv/bin/python -m pytest tests/acceptance/escapes -k keyrings
"""

if __name__ == "__main__":
    print(page(), end="")
