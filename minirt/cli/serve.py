"""`minirt registry serve` and `minirt registry garbage-collect`."""

from __future__ import annotations

import os

from minirt import state, units
from minirt.cli.options import Command, Option, Options, complain
from minirt.errors import NotFoundError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirt.registry.storage import Storage


def serve(options: Options) -> int:
    """`minirt registry serve`."""
    from minirt.registry import discover, garbage, serve
    from minirt.registry.htpasswd import Users

    cert, key = options["tls-cert"], options["tls-key"]
    if bool(cert) != bool(key):
        raise UsageError("--tls-cert and --tls-key belong together: give both, or none")
    settings = serve.Settings(discover.routes(options["read-only"], options["delete"]), quiet=options["quiet"])
    settings.users = Users(options["auth"]) if options["auth"] else None
    settings.tls = serve.certificate(cert, key) if cert else None
    storage = _storage(options)
    held = garbage.hold(storage)
    try:
        listener = serve.Listener(_address(options["addr"]), storage, settings)
        host, port = listener.address
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        complain(f"serving {storage.root} at {'https' if settings.tls else 'http'}://{shown}")
        if not settings.tls and not _loopback(host):
            complain("without TLS, everything on the way can be read and changed, passwords too" if settings.users else
                 "without TLS and without --auth, everybody who reaches this address may read and write")
            complain(f'clients elsewhere need {shown.replace("0.0.0.0", "ADDRESS")} among their "insecure-registries"')
        serve.serve(listener)
    finally:
        os.close(held)
    return 0


def collect(options: Options) -> int:
    """`minirt registry garbage-collect`."""
    from minirt.registry import garbage

    root = options["root"] or f"{state.root()}/registry"
    if not os.path.isdir(f"{root}/repositories"):
        raise NotFoundError(f"there is no registry in {root}: say where its --root is")
    freed = garbage.collect(_storage(options), options["dry-run"])
    did = "would remove" if options["dry-run"] else "removed"
    lines = [f"{did} {what}" for what, _ in freed]
    lines.append(f"Total reclaimed space: {units.human_size(sum(size for _, size in freed))}")
    os.write(1, "".join(line + "\n" for line in lines).encode())
    return 0


def _storage(options: Options) -> Storage:
    from minirt.registry.storage import Storage

    return Storage(options["root"] or f"{state.root()}/registry")


def _loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")


def _address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT, :PORT or [IPv6]:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("an address is HOST:PORT, as 127.0.0.1:5000")
    return host.strip("[]") or "0.0.0.0", int(port)


def _checked_address(text: str) -> str:
    _address(text)
    return text


ROOT = Option("root", "directory", "What the registry keeps (default: registry below minirt's own)", chapter=14)

COMMANDS = {
    "registry serve": Command(
        "registry serve", "[OPTIONS]", "Serve images to others, as a registry",
        (
            Option("addr", "HOST:PORT", "Address to listen at; port 0 takes a free one", default="127.0.0.1:5000",
                   check=_checked_address, chapter=14),
            ROOT,
            Option("tls-cert", "file", "Certificate chain (PEM): serve by TLS", chapter=14),
            Option("tls-key", "file", "Private key of the certificate (PEM)", chapter=14),
            Option("auth", "file", "Ask for a user and password of this file, made by htpasswd -B", chapter=14),
            Option("read-only", help="Refuse every push", chapter=14),
            Option("delete", help="Let clients delete manifests, tags and blobs", chapter=14),
            Option("quiet", help="Print no line for each request", short="q"),
        ),
        action=serve, maximum=0,
    ),
    "registry garbage-collect": Command(
        "registry garbage-collect", "[OPTIONS]", "Free what no image of the registry needs any more",
        (ROOT, Option("dry-run", help="Only say what would be removed", chapter=14)),
        action=collect, maximum=0,
    ),
}
