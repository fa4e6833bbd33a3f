"""ping, as small as it gets: an echo request on a raw socket, and the wait for its echo.

    ping.py [--from ADDRESS] ADDRESS

It asks up to three times, a second apart (a cable that was plugged in just now needs a moment), and ends with 0 when an
echo came, else with 1. Sources: icmp(7), raw(7), RFC 792.
"""

import os
import socket
import struct
import sys
import time

ECHO_REQUEST, ECHO_REPLY = 8, 0


def checksum(data: bytes) -> int:
    """The Internet's checksum: the sum of all 16-bit words, carries added at the low end, inverted."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(address: str, source: str = "", times: int = 3) -> float:
    """Send echo requests, a second apart; return the milliseconds until the first echo. Raises OSError
    (TimeoutError when none came)."""
    for _ in range(times - 1):
        try:
            return ask(address, source)
        except TimeoutError:
            pass
    return ask(address, source)


def ask(address: str, source: str) -> float:
    """Send one echo request; return the milliseconds until the echo. Raises TimeoutError after a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as channel:
        channel.settimeout(1)
        if source:
            channel.bind((source, 0))
        ours = os.getpid() & 0xFFFF
        head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, ours, 1)
        start = time.monotonic()
        channel.sendto(struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head), ours, 1), (address, 0))
        while True:
            packet = channel.recv(1000)
            kind, _, _, number, _ = struct.unpack("!BBHHH", packet[20:28])  # behind the IP header
            if (kind, number) == (ECHO_REPLY, ours):
                return (time.monotonic() - start) * 1000


def main(arguments: list[str]) -> int:
    source = ""
    if arguments[:1] == ["--from"]:
        source, arguments = arguments[1], arguments[2:]
    if len(arguments) != 1:
        sys.exit("ping.py wants one ADDRESS")
    try:
        print(f"{arguments[0]} answers after {ping(arguments[0], source):.3f} ms")
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror or 'no answer'}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
