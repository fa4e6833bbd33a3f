"""The tools beside which minirt is measured, each with all its state in a place of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minirt import capabilities
from minirt.seccomp import compiler, policy

ROOT = Path(__file__).resolve().parents[1]
APPLETS = ("sh", "true", "sleep", "cat", "ls", "echo", "ps")


def busybox() -> Path:
    """The machine's static busybox (package busybox-static)."""
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path):
            return Path(path)
    raise SystemExit("the benchmarks need a busybox: apt-get install -y busybox-static")


def archive(path: Path, reference: str, layer: Path, command: list[str]) -> None:
    """A docker-archive (what `docker save` writes) of one layer."""
    digest = hashlib.sha256(layer.read_bytes()).hexdigest()
    config = {"architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine], "os": "linux",
              "config": {"Cmd": command, "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    encoded = json.dumps(config).encode()
    name = hashlib.sha256(encoded).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": [f"{digest}/layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for member, content in ((name, encoded), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.add(layer, f"{digest}/layer.tar")


def small_image(path: Path) -> None:
    """busybox:latest, with the machine's static busybox."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        for directory in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        tar.add(busybox(), "bin/busybox")
        for applet in APPLETS:
            info = tarfile.TarInfo(f"bin/{applet}")
            info.type, info.linkname, info.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            tar.addfile(info)
    archive(path, "busybox:latest", layer, ["sh"])
    layer.unlink()


def large_image(path: Path, files: int = 10_000, total: int = 200_000_000) -> None:
    """large:latest: `files` files in 400 directories, `total` bytes, half compressible; always the same bytes."""
    dice = random.Random(2)
    noise = dice.randbytes(1 << 20)
    layer = path.with_suffix(".layer")
    sizes = [dice.paretovariate(1.2) for _ in range(files)]
    scale = total / sum(sizes)
    with tarfile.open(layer, "w") as tar:
        for number in range(400):
            info = tarfile.TarInfo(f"usr/share/d{number:03}")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for number, size in enumerate(sizes):
            info = tarfile.TarInfo(f"usr/share/d{number % 400:03}/file{number:05}")
            info.size = int(size * scale)
            info.mtime = 1_700_000_000
            start = dice.randrange(len(noise) // 2)
            piece = noise[start:start + 4096] + b"text " * 800
            tar.addfile(info, io.BytesIO((piece * (info.size // len(piece) + 1))[:info.size]))
    archive(path, "large:latest", layer, ["true"])
    layer.unlink()


class Minirt:
    """An installed minirt below `place`, the checkout's, and a store of their own."""

    def __init__(self, place: Path) -> None:
        prefix = place / "installed"
        found = subprocess.run([ROOT / "tools" / "find-python", "--system"], capture_output=True, text=True, check=True)
        self.interpreter = found.stdout.strip()
        subprocess.run([self.interpreter, "-IB", ROOT / "minirt" / "install.py", "system", prefix], check=True)
        self.installed = str(prefix / "bin" / "minirt")
        self.checkout = str(Path(sys.executable).parent / "minirt")
        self.environment = {"MINIRT_ROOT": str(place / "store")}

    def __call__(self, *words: str | Path) -> str:
        done = subprocess.run([self.installed, *words], env={**os.environ, **self.environment}, capture_output=True,
                              text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"minirt {' '.join(map(str, words))}: {done.stderr.strip()}")
        return done.stdout.strip()


class Bundle:
    """An OCI bundle for runc and crun: `runc spec` as it comes, without a terminal, with the same busybox, and with the
    system call filter that Docker gives it."""

    def __init__(self, place: Path, command: Sequence[str] = ("true",)) -> None:
        self.path = place / "bundle"
        root = self.path / "rootfs"
        for directory in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (root / directory).mkdir(parents=True)
        shutil.copy(busybox(), root / "bin" / "busybox")
        for applet in APPLETS:
            os.link(root / "bin" / "busybox", root / "bin" / applet)
        self.states = place / "oci-states"
        if shutil.which("runc"):
            subprocess.run(["runc", "spec", "--bundle", self.path], check=True)
            spec = json.loads((self.path / "config.json").read_text())
            spec["process"].update(terminal=False, args=list(command))
            spec["linux"]["seccomp"] = seccomp()
            (self.path / "config.json").write_text(json.dumps(spec))

    def command(self, program: str, name: str) -> list[str]:
        return [program, "--root", f"{self.states}-{program}", "run", "--bundle", str(self.path), name]

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[list[str]]:
        """A runc container that runs, and how runc is to be called for it; an empty list where there is no runc."""
        if not shutil.which("runc"):
            yield []
            return
        *runc, run, path, where, _ = self.command("runc", name)
        subprocess.run([*runc, run, "--detach", path, where, name], check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield runc
        finally:
            subprocess.run([*runc, "delete", "--force", name], check=False)


def seccomp() -> dict[str, Any]:
    """Docker's policy for its fourteen capabilities, as "seccomp" of an OCI specification."""
    rules = compiler.rules_for(policy.BUILTIN, capabilities.DEFAULT, os.uname().machine, compiler.kernel_version())
    fields = ("names", "action", "errnoRet", "args")
    tables: Any = policy.BUILTIN["archMap"]
    machine = next(entry for entry in tables
                   if compiler.NAMES.get(entry["architecture"]) == os.uname().machine)
    return {"defaultAction": policy.BUILTIN["defaultAction"],
            "architectures": [machine["architecture"], *machine["subArchitectures"]],
            "syscalls": [{field: rule[field] for field in fields if rule.get(field)} for rule in rules]}


class Podman:
    """Podman with a store, a run directory and settings of its own, and runc or crun below it."""

    def __init__(self, place: Path, runtime: str = "runc") -> None:
        settings = place / "containers.conf"
        settings.write_text(f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "{runtime}"\n'
                            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n'
                            'log_driver = "k8s-file"\n')
        storage = place / "storage.conf"
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{place}/podman"\n'
                           f'runroot = "{place}/podman-run"\n')
        policy = place / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.place = place
        self.environment = {"CONTAINERS_CONF": str(settings), "CONTAINERS_STORAGE_CONF": str(storage)}

    def command(self, *words: str | Path) -> list[str]:
        return ["podman", *map(str, words)]

    def __call__(self, *words: str | Path) -> str:
        done = subprocess.run(self.command(*words), env={**os.environ, **self.environment}, capture_output=True,
                              text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"podman {words[0]}: {done.stderr.strip()}")
        return done.stdout.strip()


class Docker:
    """A dockerd in mount and network namespaces of its own, with all its state below `place`."""

    def __init__(self, place: Path) -> None:
        self.socket = place / "docker.sock"
        self.environment = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(place / "docker-config")}
        command: list[str | Path] = [
            "unshare", "--mount", "--net", "--propagation", "private", "dockerd", "--host", f"unix://{self.socket}",
            "--data-root", place / "docker", "--exec-root", place / "docker-run", "--pidfile", place / "docker.pid",
            "--iptables=false", "--ip6tables=false", "--bridge=none"]
        self.log = (place / "docker.log").open("wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        for _ in range(200):
            if subprocess.run(["docker", "version"], env={**os.environ, **self.environment}, capture_output=True,
                              check=False).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        tail = (place / "docker.log").read_text(errors="replace").strip().splitlines()[-1:]
        self.close()
        raise RuntimeError(f"dockerd does not start: {' '.join(tail)}")

    def __call__(self, *words: str | Path) -> str:
        done = subprocess.run(["docker", *words], env={**os.environ, **self.environment}, capture_output=True,
                              text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"docker {words[0]}: {done.stderr.strip()}")
        return done.stdout.strip()

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        self.log.close()


def without_unified() -> int:
    """A descriptor of a mount namespace where a hybrid machine's cgroup2 tree is not mounted, as crun wants it.

    -1 where there is nothing to hide."""
    if not os.path.isdir("/sys/fs/cgroup/unified"):
        return -1
    script = "umount /sys/fs/cgroup/unified && echo ready && exec sleep 60"
    holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                              stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    descriptor = os.open(f"/proc/{holder.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    holder.kill()
    holder.wait()
    return descriptor
