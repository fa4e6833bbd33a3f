"""A registry of ours that stands where public ones do: in a cage, by their names, with a trusted certificate."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def standing_for(hosts: list[str], place: Path, *options: str) -> Iterator[None]:
    """Serve on port 443 of this cage's loopback, where its /etc/hosts now says that `hosts` are; certs.d trusts it.

    `place`: a directory for what it keeps; `options` go to `minirt registry serve`.
    """
    certificate, key = place / "standin.crt", place / "standin.key"
    names = ",".join(f"DNS:{host}" for host in hosts)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
                    "-subj", f"/CN={hosts[0]}", "-addext", f"subjectAltName={names}", "-keyout", key,
                    "-out", certificate], check=True, capture_output=True)
    for host in hosts:
        trusted = Path("/etc/docker/certs.d", host)
        trusted.mkdir(parents=True, exist_ok=True)
        (trusted / "ca.crt").write_bytes(certificate.read_bytes())
    with open("/etc/hosts", "a") as file:
        file.write(f"127.0.0.1 {' '.join(hosts)}\n")
    command = [sys.executable, "-m", "minirt", "registry", "serve", "--addr", "127.0.0.1:443",
               "--root", str(place / "standin"), "--tls-cert", str(certificate), "--tls-key", str(key), *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr and "serving" in server.stderr.readline()
            yield
        finally:
            server.terminate()
