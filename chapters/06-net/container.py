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
from argparse import SUPPRESS, ArgumentParser, RawTextHelpFormatter

from minirt import errors
from minirt.kernel import process
from minirt.namespaces import ipc, mnt, net, pid, uts

MOUNTS = {
    "/proc": {"type": "proc", "options": ["nosuid", "nodev", "noexec"]},
    "/sys": {"type": "sysfs", "options": ["nosuid", "nodev", "noexec", "ro"]},  # shows the interfaces of our namespace
    "/dev": {"type": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
}


def address_and_bits(text: str) -> ipaddress.IPv4Interface:
    """An address and the bits of its network, as in 10.6.0.2/24. Raises ValueError."""
    if "/" not in text:
        raise ValueError("without a network nobody is near")
    return ipaddress.IPv4Interface(text)


def main() -> int:
    parser = ArgumentParser("container.py", SUPPRESS, __doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--network", default="none", choices=("none", "host", "cable"))
    parser.add_argument("--address", default="10.6.0.2/24", type=address_and_bits)
    parser.add_argument("--gateway", default="10.6.0.1/24", type=address_and_bits)
    parser.add_argument("--mac-address", default=b"", type=net.hardware_address)
    parser.add_argument("rootfs", nargs="?", default="/")
    parser.add_argument("command", nargs="...")
    wanted = parser.parse_args()
    command = wanted.command or ["ip", "address"]
    entered, laid = os.pipe(), os.pipe()

    def contained() -> int:
        for room in (uts, ipc, mnt) if wanted.network == "host" else (uts, ipc, net, mnt):
            room.enter()
        uts.configure("box")
        if wanted.network != "host":
            net.configure()
        os.close(entered[1])  # the parent reads the end: we are in our namespace
        os.close(laid[1])
        os.read(laid[0], 1)
        if wanted.network == "cable":
            net.plug("eth0", str(wanted.address), str(wanted.gateway.ip), wanted.mac_address)
        root = mnt.bind_root(wanted.rootfs)
        for destination, entry in MOUNTS.items():
            mnt.attach(mnt.make(entry), root, destination)
        mnt.make_devices(root)
        mnt.pivot(root)
        code = process.become(command)
        print(f"container.py: {command[0]}: {'not found' if code == 127 else 'cannot be executed'}", file=sys.stderr)
        return code

    child = process.fork_call(contained, fork=lambda: pid.birth()[0])
    os.close(entered[1])
    os.read(entered[0], 1)
    if wanted.network == "cable":  # one end goes into the child's namespace; ours is named after the child
        net.join(f"veth{child}", "eth0", os.open(f"/proc/{child}/ns/net", os.O_RDONLY))
        net.plug(f"veth{child}", str(wanted.gateway))
    os.close(laid[1])
    return process.wait(child)


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main())
