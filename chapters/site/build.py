"""Build the site: fetch the two scripts that the pages need, then `mkdocs build --strict`.

`python chapters/site/build.py [--out DIR] [--no-execute]`, from anywhere, by an ordinary user. The scripts come from
npm, in fixed versions, into .cache/site; with these in place the build needs no network. The pages never ask another
host for anything: Material would otherwise load both from elsewhere.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / ".cache" / "site"
# package and version -> the file in it, our name for it
PACKAGES = {
    "mermaid@11.17.2": ("package/dist/mermaid.min.js", "mermaid.min.js"),
    "iframe-worker@1.0.4": ("package/shim/index.js", "iframe-worker.js"),
}


def fetch_scripts() -> None:
    """Bring the scripts that are not there yet. Raises SystemExit with a sentence where npm cannot."""
    missing = {p: names for p, names in PACKAGES.items() if not (SCRIPTS / names[1]).exists()}
    if not missing:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("the site needs npm once, to fetch mermaid and iframe-worker: apt-get install npm")
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        for package, (member, name) in missing.items():
            done = subprocess.run([npm, "pack", "--silent", package], cwd=directory, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"npm could not fetch {package}: {done.stderr.strip()}")
            archive = (Path(directory) / done.stdout.strip().splitlines()[-1]).read_bytes()
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                stream = tar.extractfile(member)
                if stream is None:
                    raise SystemExit(f"{package} has no {member}")
                half = SCRIPTS / (name + ".part")
                half.write_bytes(stream.read())
                half.rename(SCRIPTS / name)


def build(out: Path, execute: bool = True) -> int:
    """Build into `out`; returns mkdocs's exit status (not 0 for any warning: links, anchors, navigation)."""
    fetch_scripts()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MINIRT_SITE_NOTEBOOKS": "execute" if execute else "as they are",
        "NO_MKDOCS_2_WARNING": "1",
    }
    # Never -q: it hides the warnings, and then --strict lets broken links pass.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(ROOT / "mkdocs.yml")]
    return subprocess.run([*command, "--site-dir", str(out)], cwd=ROOT, env=environment).returncode


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the book's site into DIR, strictly.")
    parser.add_argument("--out", type=Path, default=ROOT / "site", metavar="DIR", help="where to (default: site/)")
    parser.add_argument("--no-execute", action="store_true", help="show the notebooks without running them")
    options = parser.parse_args()
    status = build(options.out.resolve(), execute=not options.no_execute)
    if status == 0:
        print(f"the site is in {options.out}: open {options.out / 'index.html'} in a browser, no server needed")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
