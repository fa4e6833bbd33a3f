"""Where minirt differs from Docker's command line: flags and commands that Docker has and minirt does not, each
with its reason.

Pure data and three small functions. `minirt.cli.options` asks `reason` when a flag is unknown; `minirt help
differences` prints it all. The chapter is the one that brings the thing; 0 means that it will not come, and the
text says why.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

TITLES = {
    6: "network namespaces",
    7: "user namespaces",
    8: "cgroups",
    10: "capabilities",
    11: "seccomp",
    12: "the container process",
    13: "images",
    14: "the registry",
    15: "container networks",
    16: "volumes",
    17: "containers",
    18: "build",
    19: "compose",
    20: "the daemon",
    21: "the OCI runtime",
}

WINDOWS = "it exists on Windows only"
TRUST = "image signatures of Docker's old content trust are not supported"
PLATFORM = "images of one platform are run: the machine's own"
REALTIME = "control groups of version 2 have no share of real time"
CHECKPOINT = "checkpoints need CRIU, which is a project of its own"

# long name: (short letter, chapter, reason where no chapter brings it)
_RUN: dict[str, tuple[str, int, str]] = {
    "blkio-weight-device": ("", 0, "the kernel's usual I/O schedulers know no weight for a device alone"),
    "cpu-count": ("", 0, WINDOWS),
    "cpu-percent": ("", 0, WINDOWS),
    "cpu-rt-period": ("", 0, REALTIME),
    "cpu-rt-runtime": ("", 0, REALTIME),
    "gpus": ("", 0, "the drivers' own tools would be needed; give the device nodes with --device"),
    "health-cmd": ("", 17, ""),
    "health-interval": ("", 17, ""),
    "health-retries": ("", 17, ""),
    "health-start-interval": ("", 17, ""),
    "health-start-period": ("", 17, ""),
    "health-timeout": ("", 17, ""),
    "io-maxbandwidth": ("", 0, WINDOWS),
    "io-maxiops": ("", 0, WINDOWS),
    "ip": ("", 15, ""),
    "ip6": ("", 15, ""),
    "kernel-memory": ("", 0, "the kernel has dropped this limit"),
    "link": ("", 15, ""),
    "link-local-ip": ("", 15, ""),
    "network-alias": ("", 15, ""),
    "publish": ("p", 15, ""),
    "publish-all": ("P", 15, ""),
    "restart": ("", 17, ""),
    "runtime": ("", 21, ""),
    "storage-opt": ("", 0, "overlay directories have no size of their own without quotas of the file system below"),
    "use-api-socket": ("", 20, ""),
    "volume-driver": ("", 16, ""),
    "volumes-from": ("", 16, ""),
}

FLAGS: dict[str, dict[str, tuple[str, int, str]]] = {
    "run": _RUN,
    "create": {**_RUN, "sig-proxy": ("", 0, "it belongs to run and attach")},
    "start": {
        "checkpoint": ("", 0, CHECKPOINT),
        "checkpoint-dir": ("", 0, CHECKPOINT),
    },
    "system prune": {"volumes": ("", 16, "")},
    "rm": {"link": ("l", 15, "")},
    "pull": {"disable-content-trust": ("", 0, TRUST)},
    "push": {"disable-content-trust": ("", 0, TRUST)},
}

# command: (chapter, reason where no chapter brings it)
COMMANDS: dict[str, tuple[int, str]] = {
    "build": (18, ""),
    "builder": (18, ""),
    "buildx": (18, ""),
    "checkpoint": (0, CHECKPOINT),
    "commit": (18, ""),
    "compose": (19, ""),
    "config": (0, "there is no swarm"),
    "context": (20, ""),
    "cp": (17, ""),
    "exec": (17, ""),
    "export": (17, ""),
    "info": (20, ""),
    "network": (15, ""),
    "node": (0, "there is no swarm"),
    "plugin": (0, "plugins are programs for Docker's own daemon"),
    "port": (15, ""),
    "search": (0, "registries cannot be searched, only Docker Hub's web site can: https://hub.docker.com/search"),
    "secret": (0, "there is no swarm"),
    "service": (0, "there is no swarm"),
    "stack": (0, "there is no swarm"),
    "stats": (17, ""),
    "swarm": (0, "there is no swarm"),
    "trust": (0, TRUST),
    "update": (17, ""),
    "volume": (16, ""),
}

# What works, but not in every respect as in Docker.
NOTES = (
    ("run --network", "the default is none until chapter 15, container networks, brings bridges"),
    ("run --add-host", "host-gateway, the address of a bridge, arrives with chapter 15, container networks"),
    ("run --mac-address", "for the interface that chapter 15, container networks, brings; kept until then"),
    ("run --expose", "noted for inspect; what it does to networks arrives with chapter 15, container networks"),
    ("run --cgroupns", "private by default on every machine, where Docker takes host on version 1"),
    ("run --userns", "host, auto (65536 ids for each container) and Podman's keep-id, without its options; an ordinary "
     "user's containers are in a namespace of theirs anyway"),
    ("run --mount, -v", "bind mounts and tmpfs; named and anonymous volumes arrive with chapter 16, volumes"),
    ("run --log-driver", "json-file, local and none, in files of one form; --log-opt max-size, max-file, labels, env"),
    ("run --security-opt", "no-new-privileges, seccomp and systempaths; no profiles of AppArmor and SELinux"),
    ("rmi", "an image counts as used when a container stands on the same layers, from whichever image it was made"),
    ("pull, load, import", "compressed data that unfolds to more than 4 GiB and to more than 100 times its size is "
     "refused as a bomb, and 64 MiB of the disk are left free"),
    ("save", "--format chooses the archive's form, as in Podman; --platform takes one platform"),
    ("system df", "an image's size counts its blobs as they came and its files, unpacked"),
    ("--format", "not define, template and block; a name that is not there is answered with those that are"),
    ("ps", "one status that Docker does not know: Dead (monitor lost)"),
)


def arrives(what: str, chapter: int, reason: str) -> str:
    """The sentence that refuses `what`: with the chapter that brings it, or with the reason why none does."""
    if chapter:
        return f"{what} arrives with chapter {chapter:02}, {TITLES[chapter]}"
    return f"{what} is not supported: {reason}"


def reason(command: str, flag: str) -> str:
    """Why `command` refuses `flag` (`--memory` or `-m`): a sentence, or the empty string where Docker has no such
    flag.
    """
    for long, (short, chapter, text) in FLAGS.get(command, {}).items():
        if flag in (f"--{long}", f"-{short}"):
            return arrives(flag, chapter, text)
    return ""


def text(there: Collection[str] = ()) -> str:
    """All of it, as `minirt help differences` prints it. `there`: commands that this minirt has nevertheless."""
    lines = ["Where minirt differs from Docker's command line.", "", "Different:"]
    lines += [f"  {what:<24}{how}" for what, how in NOTES]
    lines += ["", "Commands that minirt does not have:"]
    lines += ["  " + arrives(f"{name:<24}", chapter, why) for name, (chapter, why) in sorted(COMMANDS.items())
              if name not in there]
    for command, flags in FLAGS.items():
        if not flags:
            continue
        lines += ["", f"Flags that minirt {command} refuses:"]
        for long, (short, chapter, why) in sorted(flags.items()):
            spelled = f"-{short}, --{long}" if short else f"    --{long}"
            lines.append("  " + arrives(f"{spelled:<30}", chapter, why))
    return "\n".join(lines) + "\n"
