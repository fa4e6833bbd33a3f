"""`minirt run` and `minirt create`: their options, and nothing else. What they do is in `minirt.containers`.

The checks of values import the room that knows them only when the option is used: a start pays for what it asks for.
"""

from __future__ import annotations

import os

from minirt.cli import explain
from minirt.cli.options import Command, Option, Options, complain
from minirt.errors import NotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

def _check(module: str, function: str, *before: Any) -> Callable[[Any], Any]:
    """A check that is imported when it is first needed."""

    def check(value: Any) -> Any:
        return getattr(__import__(module, fromlist=(function,)), function)(*before, value)

    return check


VALUES, MOUNTS, LIMITS = "minirt.containers.values", "minirt.containers.mounts", "minirt.containers.limits"
RESOLVE = "minirt.containers.resolve"


def pull_policy(text: str) -> str:
    """`--pull`: when a registry is asked for the image."""
    if text not in ("always", "missing", "never"):
        raise ValueError(f"invalid pull option: '{text}': must be one of \"always\", \"missing\" or \"never\"")
    return text


def no_verification(skipped: Any) -> bool:
    """`--disable-content-trust`, which is so."""
    if not skipped:
        raise ValueError("image signatures of Docker's old content trust are not supported")
    return True


OPTIONS = (
    Option("annotation", "map", "Add an annotation to the container (KEY=VALUE)", chapter=12),
    Option("attach", "list", "Attach to STDIN, STDOUT or STDERR", short="a", chapter=17,
           check=_check(VALUES, "stream")),
    Option("add-host", "list", "Add a custom host-to-IP mapping (host:ip)", chapter=6,
           check=_check(RESOLVE, "extra_host")),
    Option("blkio-weight", "uint16", "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
           chapter=8, check=_check(LIMITS, "weight")),
    Option("cap-add", "list", "Add Linux capabilities", chapter=10, check=_check(VALUES, "capability")),
    Option("cap-drop", "list", "Drop Linux capabilities", chapter=10, check=_check(VALUES, "capability")),
    Option("cgroup-parent", "string", "Optional parent cgroup for the container", chapter=8,
           check=_check(LIMITS, "parent")),
    Option("cgroupns", "string", "Cgroup namespace to use: host, private", chapter=8,
           check=_check(LIMITS, "namespace")),
    Option("cidfile", "string", "Write the container ID to the file", chapter=17),
    Option("cpu-period", "int", "Limit CPU CFS (Completely Fair Scheduler) period", chapter=8),
    Option("cpu-quota", "int", "Limit CPU CFS (Completely Fair Scheduler) quota", chapter=8),
    Option("cpu-shares", "int", "CPU shares (relative weight)", short="c", chapter=8),
    Option("cpus", "decimal", "Number of CPUs", chapter=8, check=_check(LIMITS, "cpus")),
    Option("cpuset-cpus", "string", "CPUs in which to allow execution (0-3, 0,1)", chapter=8),
    Option("cpuset-mems", "string", "MEMs in which to allow execution (0-3, 0,1)", chapter=8),
    Option("device", "list", "Add a host device to the container", chapter=4, check=_check(VALUES, "device")),
    Option("device-cgroup-rule", "list", "Add a rule to the cgroup allowed devices list", chapter=8,
           check=_check(LIMITS, "rule")),
    Option("device-read-bps", "list", "Limit read rate (bytes per second) from a device", chapter=8,
           check=_check(LIMITS, "bytes_rate")),
    Option("device-read-iops", "list", "Limit read rate (IO per second) from a device", chapter=8,
           check=_check(LIMITS, "operations_rate")),
    Option("device-write-bps", "list", "Limit write rate (bytes per second) to a device", chapter=8,
           check=_check(LIMITS, "bytes_rate")),
    Option("device-write-iops", "list", "Limit write rate (IO per second) to a device", chapter=8,
           check=_check(LIMITS, "operations_rate")),
    Option("disable-content-trust", help="Skip image verification: there is none", chapter=14, default=True,
           check=no_verification),
    Option("dns", "list", "Set custom DNS servers", chapter=6, check=_check(RESOLVE, "address")),
    Option("dns-opt", "list", alias="dns-option"),
    Option("dns-option", "list", "Set DNS options", chapter=6),
    Option("dns-search", "list", "Set custom DNS search domains", chapter=6, check=_check(RESOLVE, "search_domain")),
    Option("domainname", "string", "Container NIS domain name", chapter=2),
    Option("entrypoint", "string", "Overwrite the default ENTRYPOINT of the image", chapter=13),
    Option("env", "list", "Set environment variables", short="e", chapter=12, check=_check(VALUES, "variable")),
    Option("env-file", "list", "Read in a file of environment variables", chapter=12),
    Option("expose", "list", "Note a port or a range of ports in the container's description", chapter=13,
           check=_check(VALUES, "ports")),
    Option("group-add", "list", "Add additional groups to join", chapter=12),
    Option("hostname", "string", "Container host name", short="h", chapter=2),
    Option("init", help="Run an init inside the container that forwards signals and reaps processes", chapter=3),
    Option("interactive", help="Keep STDIN open even if not attached", short="i", chapter=17),
    Option("ipc", "string", "IPC mode to use: private, shareable, none, host, container:NAME", chapter=5,
           check=_check(VALUES, "mode", "IPC", ("private", "shareable", "none", "host"))),
    Option("isolation", "string", "Container isolation technology: default", chapter=12,
           check=_check(VALUES, "isolation")),
    Option("label", "list", "Set meta data on a container", short="l", chapter=17, check=_check(VALUES, "label")),
    Option("label-file", "list", "Read in a line delimited file of labels", chapter=17),
    Option("log-driver", "string", "Logging driver for the container: json-file, local, none", chapter=17),
    Option("log-opt", "map", "Log driver options: max-size, max-file, labels, env", chapter=17),
    Option("memory", "bytes", "Memory limit", short="m", chapter=8),
    Option("memory-reservation", "bytes", "Memory soft limit", chapter=8),
    Option("memory-swap", "bytes", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap", chapter=8,
           check=_check(LIMITS, "swap")),
    Option("memory-swappiness", "int", "Tune container memory swappiness (0 to 100)", chapter=8, default=-1),
    Option("mac-address", "string", "Container MAC address", chapter=6, check=_check(RESOLVE, "mac_address")),
    Option("mount", "list", "Attach a filesystem mount to the container", chapter=4, check=_check(MOUNTS, "mount")),
    Option("name", "string", "Assign a name to the container", chapter=17),
    Option("net", "string", alias="network"),
    Option("network", "string", "Connect a container to a network: none, host, container:NAME", chapter=6,
           default="none", check=_check(VALUES, "network")),
    Option("no-healthcheck", help="Disable any container-specified HEALTHCHECK", chapter=13),
    Option("oom-kill-disable", help="Disable OOM Killer", chapter=8),
    Option("oom-score-adj", "int", "Tune host's OOM preferences (-1000 to 1000)", chapter=12, default=0,
           check=_check(VALUES, "score")),
    Option("pid", "string", "PID namespace to use: host, container:NAME", chapter=3,
           check=_check(VALUES, "mode", "PID", ("host",))),
    Option("pids-limit", "int", "Tune container pids limit (set -1 for unlimited)", chapter=8),
    Option("platform", "string", "Take the image only if it is made for that platform: OS/ARCHITECTURE", chapter=14,
           check=_check("minirt.images.platforms", "parse")),
    Option("privileged", help="Give extended privileges to this container", chapter=10),
    Option("pull", "string", "Pull image before running: always, missing, never", chapter=14, default="missing",
           check=pull_policy),
    Option("quiet", help="Suppress the pull output", short="q", chapter=14),
    Option("read-only", help="Mount the container's root filesystem as read only", chapter=4),
    Option("rm", help="Automatically remove the container when it exits", chapter=17),
    Option("security-opt", "list", "Security options: no-new-privileges, seccomp=FILE, systempaths=unconfined",
           chapter=11, check=_check(VALUES, "security")),
    Option("shm-size", "bytes", "Size of /dev/shm", chapter=5, default=0),
    Option("stop-signal", "string", "Signal to stop the container", chapter=17, check=_check(VALUES, "signal")),
    Option("stop-timeout", "int", "Timeout (in seconds) to stop a container", chapter=17),
    Option("sysctl", "list", "Sysctl options", chapter=12, check=_check(VALUES, "sysctl")),
    Option("tmpfs", "list", "Mount a tmpfs directory", chapter=4, check=_check(MOUNTS, "tmpfs")),
    Option("tty", help="Allocate a pseudo-TTY", short="t", chapter=12),
    Option("ulimit", "list", "Ulimit options", chapter=12, check=_check(VALUES, "limit")),
    Option("user", "string", "Username or UID (format: <name|uid>[:<group|gid>])", short="u", chapter=12),
    Option("userns", "string", "User namespace to use: host, auto (ids of its own), keep-id", chapter=7,
           check=_check("minirt.containers.remap", "mode")),
    Option("uts", "string", "UTS namespace to use: host", chapter=2, check=_check(VALUES, "mode", "UTS", ("host",))),
    Option("volume", "list", "Bind mount a volume", short="v", chapter=4, check=_check(MOUNTS, "volume")),
    Option("workdir", "string", "Working directory inside the container", short="w", chapter=12),
)  # fmt: skip

# With one of these the room that knows them is loaded.
LIMITING = frozenset(option.long for option in OPTIONS if option.chapter == 8)
MOUNTING = frozenset(("volume", "mount", "tmpfs"))

ONLY_RUN = (
    Option("detach-keys", "string", "Override the key sequence for detaching a container", chapter=17,
           check=_check(VALUES, "keys")),
    Option("detach", help="Run container in background and print container ID", short="d", chapter=17),
    Option("sig-proxy", help="Proxy received signals to the process", chapter=17, default=True),
)


def tell_ordinary_user() -> None:
    """Says once what containers of an ordinary user lack on this machine, and what to do about it."""
    from minirt.cgroups import tree
    from minirt.namespaces import rootless

    sentences = rootless.lacking()
    if not tree.group(tree.PARENT).version:
        sentences.append("no control group was delegated to you, so containers have no limits, no statistics and no "
                         "pause; with systemd: systemd-run --user --scope -p Delegate=yes minirt run ...")
    for sentence in rootless.news(sentences):
        complain(sentence)


def asked(options: Options) -> dict[str, Any]:
    """The options as `minirt.containers` takes them: an entrypoint that was not given is None, not empty."""
    result = dict(options)
    if "entrypoint" not in options.given:
        result["entrypoint"] = None
    if not options.given.isdisjoint(MOUNTING):
        from minirt.containers import mounts

        mounts.check_targets([*options["volume"], *options["mount"]], [target for target, _ in options["tmpfs"]])
    if options["log-driver"] or options["log-opt"]:
        from minirt.containers import values

        result["log"] = values.logging(options["log-driver"] or "json-file", options["log-opt"])
    if "ulimit" in options.given:
        from minirt.containers import values

        result["ulimit"] = values.limits(options["ulimit"])
    if not options.given.isdisjoint(LIMITING):
        from minirt.containers import limits

        result["limits"], warnings = limits.read(options)
        for sentence in warnings:
            os.write(2, f"WARNING: {sentence}\n".encode())
    return result


def with_image(options: Options, attempt: Callable[[], int]) -> int:
    """What `attempt` returns, with the image brought from its registry when `--pull` says so: before, or when the
    attempt failed because it is not here."""
    name = options.arguments[0]
    if options["pull"] == "always":
        bring(name, options)
    elif options["platform"] and not made_for(name, options):
        tell_missing(name)
        bring(name, options)
    try:
        return attempt()
    except NotFoundError:
        from minirt.images import lookup

        if options["pull"] != "missing" or lookup.named(name) is None:
            raise
        try:
            lookup.resolve(name)
        except NotFoundError:
            tell_missing(name)
            bring(name, options)
            return attempt()
        raise  # it was something else that is not there


def tell_missing(name: str) -> None:
    """Docker's sentence for an image that has to be brought."""
    from minirt.images import lookup

    meant = lookup.named(name)
    os.write(2, f"Unable to find image '{meant.familiar() if meant else name}' locally\n".encode())


def made_for(name: str, options: Options) -> bool:
    """Whether the image is here and made for the platform that was asked for. Raises NotFoundError where it is not and
    may not be pulled either."""
    from minirt.images import listing, platforms

    try:
        platforms.check(listing.get(name).config, name, options["platform"])
    except NotFoundError:
        if options["pull"] == "missing":
            return False
        raise
    return True


def bring(name: str, options: Options) -> None:
    """Pull the image, in a process of its own: what that needs in memory is not kept while the container runs."""
    from minirt.containers import birth
    from minirt.registry import bring

    birth.dismiss_unused()
    bring.bring(name, options["quiet"], options["platform"])


def run(options: Options) -> int:
    """`minirt run`."""
    from minirt.containers import client

    if os.geteuid():
        tell_ordinary_user()
    wanted = asked(options)
    return with_image(options, lambda: client.run(wanted, options.arguments, explain.tell))


def create(options: Options) -> int:
    """`minirt create`."""
    from minirt.containers import client
    from minirt.containers import create as creation

    wanted = {**asked(options), "detach": False}
    if wanted["cidfile"]:
        client.check_cidfile(wanted["cidfile"])

    def attempt() -> int:
        made = creation.make(wanted, options.arguments)
        if wanted["cidfile"]:
            with open(wanted["cidfile"], "w") as file:
                file.write(made.id)
        os.write(1, made.id.encode() + b"\n")
        return 0

    return with_image(options, attempt)


COMMANDS = {
    "run": Command(
        "run",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create and run a new container from an image",
        (*OPTIONS, *ONLY_RUN),
        action=run,
        minimum=1,
        interspersed=False,
        aliases=("container run", "run"),
        ours=True,
    ),
    "create": Command(
        "create",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Create a new container",
        OPTIONS,
        action=create,
        minimum=1,
        interspersed=False,
        aliases=("container create", "create"),
        ours=True,
    ),
}
