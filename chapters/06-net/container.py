"""The container program, chapter 06: a network of its own, and a cable to this machine.

    container.py [OPTIONS] ROOTFS [COMMAND [ARG ...]]

    --network none|host|cable    a loopback alone, this machine's network, or an interface eth0 on a cable to here
    --address, --gateway         of eth0 (10.6.0.2/24), and of the end of the cable that is here (10.6.0.1/24)
    --mac-address                of eth0, instead of a random one

ROOTFS is a directory with all that the command needs, or / for a view of this machine's own files. New in it: a network
namespace, and the cable.
"""

import ipaddress
import os
import sys
import warnings  # noqa: F401  os.execvp imports it, and in another root there is no Python to import from

from minirt.kernel import mount, process
from minirt.namespaces import ipc, mnt, net, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/sys": {"type": "sysfs", "options": ["nosuid", "nodev", "noexec", "ro"]},
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}
SHOW = ["ip", "address"]


def build_root(directory: str) -> int:
    """Put the container's root together; return a descriptor of it. /sys shows the interfaces of our namespace."""
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    root = mount.clone("", place, recursive=True)
    mount.move_mount(root, place)
    for destination, entry in MOUNTS.items():
        mnt.attach(mnt.make(entry), root, destination)
    mnt.make_devices(root)
    return root


def lay_cable(child: int, address: str) -> None:
    """Join the child's network namespace and ours; our end is named after the child."""
    namespace = os.open(f"/proc/{child}/ns/net", os.O_RDONLY)
    net.join(f"veth{child}", "eth0", namespace)
    net.plug(f"veth{child}", address)
    os.close(namespace)


def main(arguments: list[str]) -> int:
    options = {"--network": "none", "--address": "10.6.0.2/24", "--gateway": "10.6.0.1/24", "--mac-address": ""}
    while arguments and arguments[0] in options:
        name = arguments.pop(0)
        if not arguments:
            sys.exit(f"container.py: {name} wants a value")
        options[name] = arguments.pop(0)
    if arguments and arguments[0].startswith("--"):
        sys.exit(f"container.py does not know {arguments[0]}")
    directory, command = (arguments or ["/"])[0], arguments[1:] or SHOW
    if not os.path.isdir(directory):
        sys.exit(f"container.py: {directory} is no directory: ROOTFS comes before the command, / is this machine's own")
    if options["--network"] not in ("none", "host", "cable"):
        sys.exit("container.py: --network wants none, host or cable")
    cable = options["--network"] == "cable"
    try:
        hardware = net.hardware_address(options["--mac-address"]) if options["--mac-address"] else b""
        for end in ("--address", "--gateway"):
            if str(ipaddress.IPv4Interface(options[end])) != options[end]:
                raise ValueError(f"{end} wants an address and the bits of its network, as in 10.6.0.2/24")
    except ValueError as error:
        sys.exit(f"container.py: {error}")
    entered, laid = os.pipe(), os.pipe()

    def contained() -> None:
        for room in (uts, ipc):
            room.enter()
        uts.configure("box")
        if options["--network"] != "host":
            net.enter()
            net.configure()
        os.close(entered[1])  # the parent reads the end: we are in our namespace
        os.close(laid[1])
        os.read(laid[0], 1)
        if cable:
            net.plug("eth0", options["--address"], options["--gateway"].partition("/")[0], hardware)
        mnt.enter()
        mnt.pivot(build_root(directory))
        os.execvp(command[0], command)

    child, _ = pid.birth()
    if not child:
        try:
            contained()
        except Exception as error:
            print(f"container.py: {error}", file=sys.stderr)
        os._exit(125)
    os.close(entered[1])
    os.read(entered[0], 1)
    if cable:
        lay_cable(child, options["--gateway"])
    os.close(laid[1])
    return process.wait(child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
