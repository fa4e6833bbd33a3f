"""`python -m benchmarks [JOB...]`: minirt beside the tools that do the same, as Markdown on standard output.

Jobs: run, exec, list, load, registry, memory, check, imports, timeline, filters, leaks; all of them by default. Needs
root; the tools that are missing are left out. Nothing is asserted and nothing stays behind: every store lies in one
directory below TMPDIR (which must be on a file system that can carry an overlay), removed at the end.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import filters, peers, registry_server, turns
from benchmarks.remains import Remains
from benchmarks.turns import Runner

HOT = {"run": ("run", "--rm", "--network", "none", "busybox", "true"), "ps": ("ps",), "logs": ("logs", "bench"),
       "inspect": ("inspect", "bench")}

STEPS = ("execve,?clone,?fork,?vfork,clone3,unshare,pivot_root,execveat,exit_group,?rename,?renameat2,fsync,seccomp,"
         "setsid,?rmdir,memfd_create")


class Bench:
    """One run of the benchmarks: where everything lies, how often things are repeated, and what is printed."""

    def __init__(self, place: Path, rounds: int) -> None:
        self.place, self.rounds = place, rounds
        self.minirt = peers.Minirt(place)
        self.small = place / "busybox.tar"
        peers.small_image(self.small)
        self.minirt("load", "-i", self.small)

    def ours(self, *words: str) -> list[Runner]:
        """minirt as it is installed, and the checkout beside it."""
        return [Runner(f"minirt ({how})", [path, *words], self.minirt.environment)
                for how, path in (("installed", self.minirt.installed), ("checkout", self.minirt.checkout))]

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """A container that does nothing, from the command to its end, on all cores and on one."""
        bundle = peers.Bundle(self.place)
        hidden = peers.without_unified()

        def hide() -> None:
            from minirt.kernel import syscalls

            if hidden >= 0:
                syscalls.setns(hidden, 0)

        for cores, title in ((0, f"on {os.cpu_count()} cores"), (1, "on one core")):
            say(f"## run: `minirt run --rm --network none busybox true`, {title}\n")
            runners = self.ours(*HOT["run"])
            if shutil.which("runc"):
                runners.append(Runner("runc", lambda number: bundle.command("runc", f"bench-{os.getpid()}-{number}")))
            if shutil.which("crun"):
                runners.append(Runner("crun", lambda number: bundle.command("crun", f"bench-{os.getpid()}-{number}"),
                                      enter=hide))
            if shutil.which("podman") and not cores:
                podman = peers.Podman(self.place)
                podman("load", "-i", self.small)
                runners.append(Runner("podman (runc)", podman.command(
                    "run", "--rm", "--network", "none", "--pull", "never", "busybox", "true"), podman.environment))
            runners.append(Runner("the interpreter alone", [self.minirt.interpreter, "-ISc", "pass"]))
            turns.take_turns(runners, self.rounds, cores)
            say(turns.table(runners, "runc"))

    def exec(self) -> None:
        """One more command in a running container. What `--explain` costs when it is off is in all of minirt's rows."""
        bundle = peers.Bundle(self.place / "exec", ["sleep", "600"])
        with running(self.minirt), bundle.running("bench") as ours:
            daemon = peers.Docker(self.place) if shutil.which("dockerd") and shutil.which("docker") else None
            try:
                if daemon:
                    daemon("load", "-i", str(self.small))
                    daemon("run", "-d", "--name", "bench", "--network", "none", "busybox", "sleep", "600")
                for cores, title in ((0, f"on {os.cpu_count()} cores"), (1, "on one core")):
                    say(f"## exec: `minirt exec bench true`, {title}\n")
                    runners = self.ours("exec", "bench", "true")
                    if ours:
                        runners.append(Runner("runc", [*ours, "exec", "bench", "true"]))
                    if daemon:
                        runners.append(Runner("docker", ["docker", "exec", "bench", "true"], daemon.environment))
                    turns.take_turns(runners, self.rounds, cores)
                    say(turns.table(runners, "runc"))
            finally:
                if daemon:
                    daemon("rm", "-f", "bench")
                    daemon.close()

    def list(self) -> None:
        """`ps` and `inspect`, with one container running, beside the docker client and its daemon."""
        with running(self.minirt):
            daemon = peers.Docker(self.place) if shutil.which("dockerd") and shutil.which("docker") else None
            try:
                if daemon:
                    daemon("load", "-i", str(self.small))
                    daemon("run", "-d", "--name", "bench", "--network", "none", "busybox", "sleep", "600")
                for words in (("ps",), ("inspect", "bench")):
                    say(f"## list: `minirt {' '.join(words)}`\n")
                    runners = self.ours(*words)
                    if daemon:
                        runners.append(Runner("docker", ["docker", *words], daemon.environment))
                    turns.take_turns(runners, self.rounds)
                    say(turns.table(runners, "docker"))
            finally:
                if daemon:
                    daemon("rm", "-f", "bench")
                    daemon.close()

    def load(self) -> None:
        """Unpack an image of 200 MB and 10,000 files."""
        say("## load: 200 MB in 10,000 files (`docker save` format, layers not compressed)\n")
        large = self.place / "large.tar"
        peers.large_image(large)

        def forget(call: Callable[..., str], *words: str) -> Callable[[int], None]:
            def remove(number: int) -> None:
                call(*words)
                os.sync()       # what one has left to write must not be the other's burden
            return remove

        runners = [Runner("minirt (installed)", [self.minirt.installed, "load", "-i", str(large)],
                          self.minirt.environment, forget(self.minirt, "rmi", "-f", "large"))]
        if shutil.which("podman"):
            podman = peers.Podman(self.place)
            runners.append(Runner("podman", podman.command("load", "-i", large), podman.environment,
                                  after=forget(podman, "rmi", "-f", "large")))
        turns.take_turns(runners, max(3, self.rounds // 5))
        say(turns.table(runners, "podman", unit="s"))

    def registry(self) -> None:
        """Our registry and docker-registry, each with the same clients."""
        with registry_server.serving(self.place, self.minirt.installed) as servers:
            for title, runners in registry_server.jobs(self.place):
                say(f"## registry, {title}\n")
                turns.take_turns(runners, max(3, self.rounds // 5))
                say(turns.table(runners, "docker-registry"))
            for name, server in servers.items():
                say(f"largest memory of {name}: {registry_server.peak(server):.0f} MiB\n")

    def memory(self) -> None:
        """What a detached container costs beyond its own processes: the memory of its monitor (PSS)."""
        say("## memory of a detached container beyond its own processes\n")
        say("| containers | PSS each, MiB |\n|---:|---:|")
        for number in (1, 10):
            before = ours_alive()
            names = [f"bench-{each}" for each in range(number)]
            for name in names:
                self.minirt("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "600")
            time.sleep(1)
            total = sum(proportional_size(pid) for pid in ours_alive() - before)
            say(f"| {number} | {total / number / 1024:.2f} |")
            self.minirt("rm", "-f", *names)
        say("")

    def check(self) -> None:
        """The workshop's verdict on each open chapter, as it is handed out and when it is solved."""
        from chapters import contents

        say("## check: `python -m chapters check N`, every function solved\n")
        runners = []
        for chapter in contents.chapters():
            if not chapter.exercises:
                continue
            words = [sys.executable, "-m", "chapters", "--workspace", str(self.place / f"workspace-{chapter.number}")]
            for step in (("start", str(chapter.number)), ("solution", str(chapter.number), "--write")):
                subprocess.run([*words, *step], capture_output=True, check=False, stdin=subprocess.DEVNULL,
                               cwd=peers.ROOT)
            runners.append(Runner(f"check {chapter.number}", [*words, "check", str(chapter.number)]))
        turns.take_turns(runners, max(3, self.rounds // 8))
        say(turns.table(runners, "", unit="s"))

    def imports(self) -> None:
        """Which modules each hot command imports, and where the milliseconds go."""
        with running(self.minirt):
            for name, words in HOT.items():
                say(f"## imports: `minirt {name}` as installed\n")
                self.import_table(words)

    def timeline(self) -> None:
        """When the great steps of a `run` happen, of all its processes, as strace sees them (and slows them down)."""
        if not shutil.which("strace"):
            say("## timeline: not measured: it needs strace\n")
            return
        say("## timeline: `minirt run --rm --network none busybox true`, milliseconds since the start, traced\n")
        log = self.place / "timeline"
        command = ["strace", "-f", "--seccomp-bpf", "-ttt", "-o", str(log), "-e", f"trace={STEPS}",
                   self.minirt.installed, *HOT["run"]]
        for _ in range(3):      # the last one counts: everything is in memory then
            subprocess.run(command, env={**os.environ, **self.minirt.environment}, stdin=subprocess.DEVNULL,
                           capture_output=True, check=False)
        processes: dict[str, str] = {}
        start = 0.0
        say("| ms | process | step |\n|---:|---|---|")
        for line in log.read_text(errors="replace").splitlines():
            pid, moment, what = line.split(None, 2)
            start = start or float(moment)
            name = processes.setdefault(pid, ("command", "monitor", "container")[min(len(processes), 2)])
            what = re.sub(r"[0-9a-f]{64}", "ID", what).replace(str(self.place), "...").replace("|", "+")
            if not what.startswith(("---", "<...")):
                say(f"| {(float(moment) - start) * 1000:.1f} | {name} | `{what[:90]}` |")
        say("")

    def leaks(self) -> None:
        """What a thousand runs leave behind, and 50 at once: nothing."""
        remains = Remains(Path(self.minirt.environment["MINIRT_ROOT"]))
        environment = {**os.environ, **self.minirt.environment}
        command = [self.minirt.installed, "run", "--rm", "--network", "none", "busybox", "sh", "-c"]
        start, wrong = time.monotonic(), 0
        for number in range(1000):
            done = subprocess.run([*command, f"exit {number % 100}"], env=environment, stdin=subprocess.DEVNULL,
                                  capture_output=True, check=False)
            wrong += done.returncode != number % 100 or bool(done.stderr)
        each = (time.monotonic() - start) / 1000
        left = remains.more()
        started = [subprocess.Popen([*command, f"sleep 0.2; exit {number}"], env=environment, stdin=subprocess.DEVNULL)
                   for number in range(50)]
        wrong += sum(process.wait() != number for number, process in enumerate(started))
        left += remains.more()
        say(f"## leaks: 1,000 runs, one after another ({each * 1000:.0f} ms each), then 50 at once\n")
        say(f"{wrong} wrong exit codes; left behind (processes, control groups, mounts, directories, names, pins): "
            f"{len(left)}\n" + "\n".join(left))

    def filters(self) -> None:
        """What a system call costs behind a filter."""
        say("## filters: nanoseconds of one system call, most of them Python's own, which are the same in every row\n")
        say(filters.table())

    def import_table(self, words: tuple[str, ...]) -> None:
        """Print the imports of one command that a bare interpreter does not have, the dearest first."""
        command = [self.minirt.interpreter, "-X", "importtime", "-IS", self.minirt.installed, *words]
        rows: dict[str, list[int]] = {}
        for _ in range(5):
            done = subprocess.run(command, env={**os.environ, **self.minirt.environment}, capture_output=True,
                                  text=True, stdin=subprocess.DEVNULL, check=False)
            for line in done.stderr.splitlines():
                found = re.match(r"import time: +(\d+) \| +\d+ \| +(\S+)$", line)
                if found:
                    rows.setdefault(found[2], []).append(int(found[1]))
        bare = subprocess.run([*command[:3], "-ISc", "pass"], capture_output=True, text=True, check=True).stderr
        own = {module: sorted(times)[len(times) // 2] for module, times in rows.items()
               if not re.search(rf"\| +{re.escape(module)}$", bare, re.M)}
        dearest = sorted(own, key=lambda module: -own[module])
        say(f"{len(own)} modules, {sum(own.values()) / 1000:.1f} ms in all (while they are being timed): " + ", ".join(
            f"{module} {own[module] / 1000:.2f}" for module in dearest) + "\n")


@contextmanager
def running(minirt: peers.Minirt) -> Iterator[None]:
    """One container of the name bench, running."""
    minirt("run", "-d", "--name", "bench", "--network", "none", "busybox", "sleep", "600")
    try:
        yield
    finally:
        minirt("rm", "-f", "bench")


def ours_alive() -> set[int]:
    """The processes of this pid namespace that run minirt: a container's own processes live in another one."""
    here = os.stat("/proc/self/ns/pid").st_ino
    found = set()
    for name in os.listdir("/proc"):
        try:
            near = name.isdigit() and os.stat(f"/proc/{name}/ns/pid").st_ino == here
            if near and b"minirt" in Path(f"/proc/{name}/cmdline").read_bytes():
                found.add(int(name))
        except OSError:
            continue    # ended meanwhile
    return found


def proportional_size(pid: int) -> int:
    """The memory of a process in KiB, pages that it shares counted in proportion (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Run the jobs that the command line names."""
    jobs = ("run", "exec", "list", "load", "registry", "memory", "check", "imports", "timeline", "filters", "leaks")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=", ".join(jobs))
    parser.add_argument("--rounds", type=int, default=25, help="turns for the short jobs (25)")
    arguments = parser.parse_args()
    unknown = set(arguments.jobs) - set(jobs)
    if unknown or os.geteuid():
        parser.error(f"no such job: {', '.join(unknown)}" if unknown else "the benchmarks need root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say(f"# Measured on {platform.release()} {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, in turns\n")
    place = Path(tempfile.mkdtemp(prefix="minirt-bench-"))
    try:
        bench = Bench(place, arguments.rounds)
        for job in arguments.jobs or jobs:
            try:
                getattr(bench, job)()
            except (RuntimeError, OSError, SystemExit) as problem:
                say(f"## {job}: not measured: {problem}\n")
    finally:
        subprocess.run(f"awk '$2 ~ \"^{place}/\" {{print $2}}' /proc/self/mounts | sort -r | xargs -r umount -l",
                       shell=True, check=False)
        shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
