"""The classroom: the teacher's machine as the registry of the lesson, with a page that shows how far everybody is.

`python -m chapters serve` is the registry of chapter 14 with two more rows in its table: `GET /` is the page, `PUT
/join` takes what a participant's `check N --join URL` sends: a name, and which exercises are solved. Nothing else is
sent, and nothing without `--join`; a classroom that is not there never spoils a check.

The lesson's images are put in with `--image ARCHIVE`; everybody in the room may pull and push, for the finale: each
pushes an image that their own code made, and runs those of the others.
"""

from __future__ import annotations

import getpass
import hashlib
import html
import json
import os
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chapters import contents
from chapters.workspace import WorkshopError, Workspace

if TYPE_CHECKING:
    from minirt.registry.server import Answer, Request
    from minirt.registry.storage import Repository, Storage

SECONDS = 2.0  # that a check waits for the classroom
LONGEST_NAME = 40
LARGEST_MESSAGE = 64 << 10
MOST_PEOPLE = 500

PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><title>minirt: the classroom</title>
<style>body {{ font: 1.1rem sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ text-align: left; padding: .3rem 1rem .3rem 0; vertical-align: top }}
code, pre {{ background: #eee; padding: .1rem .3rem }} .done {{ color: #070 }}</style></head>
<body><h1>The classroom</h1>
<p>Show here how far you are, if you like: <code>python -m chapters check --join http://{host}</code></p>
<h2>Who is where</h2>
{people}
<h2>Images</h2>
<p>Once, so that your machine speaks to this one without TLS, in <code>/etc/minirt/config.json</code>
(without root: <code>~/.config/minirt/config.json</code>; for Docker: <code>/etc/docker/daemon.json</code>):</p>
<pre>{{"insecure-registries": ["{host}"]}}</pre>
{images}
</body></html>
"""


# -- the participant's side ----------------------------------------------------------------------------------------


def progress(workspace: Workspace) -> dict[str, list[str]]:
    """What is solved: number of a chapter -> names of its functions, as they stand in the workspace now."""
    found = {}
    for chapter in workspace.all_started():
        solved = [each.function for each in chapter.exercises if workspace.solved(chapter, each)]
        found[str(chapter.number)] = solved
    return found


def join(address: str, name: str, workspace: Workspace) -> str:
    """Tell the classroom at `address` who is how far. Returns the sentence for the participant; raises nothing."""
    who = name or os.environ.get("SUDO_USER") or getpass.getuser()
    other = "; others may be root too: --as NAME" if who == "root" and not name else ""
    message = json.dumps({"name": who, "solved": progress(workspace)}).encode()
    import urllib.request

    target = address if "://" in address else f"http://{address}"
    try:
        request = urllib.request.Request(f"{target.rstrip('/')}/join", message, method="PUT")
        # No proxy: the classroom is in this room.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=SECONDS):
            return f"The classroom knows it, as {who}{other}."
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "reason", error))
    except Exception as error:  # whatever it is that answers there: it must not spoil a check
        reason = f"no classroom answers there ({type(error).__name__})"
    return f"The classroom does not know it: {address}: {reason}. Your check counts as it is."


# -- the teacher's side ----------------------------------------------------------------------------------------------


class Classroom:
    """Who has sent what, kept in `people.json` below the registry's directory."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.path = Path(storage.root) / "people.json"
        self.lock = threading.Lock()
        try:
            self.people: dict[str, dict[str, list[str]]] = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            self.people = {}

    def routes(self) -> tuple[tuple[str, str, Any], ...]:
        """The registry's table, with the classroom's rows."""
        from minirt.registry import discover

        return (*discover.routes(), ("GET", "/", self.page), ("PUT", "/join", self.joined))

    def joined(self, storage: Storage, request: Request) -> Answer:
        """Note what one participant has sent."""
        from minirt.registry.server import Answer
        from minirt.registry.storage import Refused

        data = b""
        for piece in request.body:
            data += piece
            if len(data) > LARGEST_MESSAGE:
                raise Refused("SIZE_INVALID", "this is more than a name and some functions")
        try:
            name, solved = understood(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise Refused("MANIFEST_INVALID", "not a name and the functions that are solved") from None
        with self.lock:
            if name not in self.people and len(self.people) >= MOST_PEOPLE:
                raise Refused("DENIED", "the classroom is full")
            self.people[name] = solved
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.people))
            temporary.rename(self.path)
        return Answer(204)

    def page(self, storage: Storage, request: Request) -> Answer:
        """The page for everybody."""
        from minirt.registry import server

        host = html.escape(request.headers.get("Host", "ADDRESS:PORT"))
        with self.lock:
            text = PAGE.format(host=host, people=people_table(self.people), images=image_table(storage, host))
        headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "default-src 'unsafe-inline'"}
        return server.Answer(200, headers, text.encode())


def understood(message: dict[str, Any]) -> tuple[str, dict[str, list[str]]]:
    """A name and its solved functions, only those of the book. Raises ValueError and its like for anything else."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in message["name"]).split())
    if not name or len(name) > LONGEST_NAME:
        raise ValueError("a name has 1 to 40 letters")
    solved = {}
    for chapter in contents.chapters():
        theirs = message["solved"].get(str(chapter.number))
        if theirs is not None:
            solved[str(chapter.number)] = [each.function for each in chapter.exercises if each.function in theirs]
    return name, solved


def people_table(people: Mapping[str, Mapping[str, Iterable[str]]]) -> str:
    """The table of everybody, by name; a row for each chapter that somebody has begun."""
    if not people:
        return "<p>Nobody yet.</p>"
    chapters = {str(each.number): each for each in contents.chapters()}
    rows = []
    for name in sorted(people, key=str.lower):
        cells = []
        for number, solved in sorted(people[name].items(), key=lambda item: int(item[0])):
            if number not in chapters:  # kept from an older book
                continue
            chapter, count = chapters[number], len(list(solved))
            total = len(chapter.exercises)
            mark = ' class="done"' if count == total else ""
            cells.append(f"<span{mark}>{chapter.number:02} {html.escape(chapter.title)}: {count} of {total}</span>")
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{'<br>'.join(cells)}</td></tr>")
    return f"<table><tr><th>name</th><th>chapters</th></tr>{''.join(rows)}</table>"


def image_table(storage: Storage, host: str) -> str:
    """What can be pulled, each with the command that runs it."""
    from minirt.registry import discover
    from minirt.registry.storage import tag_of

    lines = [f"<li><code>minirt run --rm {host}/{repository.name}:{tag}</code></li>"
             for repository in discover.repositories(storage)
             for tag in sorted(filter(None, map(tag_of, repository.entries())))]
    return f"<ul>{''.join(lines)}</ul>" if lines else "<p>None yet.</p>"


def offer(storage: Storage, path: Path) -> list[str]:
    """Put the images of an archive, as `minirt save` and `docker save` write it, into the registry: their names.

    Raises MinirtError where it is none."""
    from minirt.images import archive, reference

    spool, names = Path(storage.root) / "spool", []
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for image in archive.images(archive.open_archive(descriptor, str(spool))):
            for name in image.names:
                full = reference.parse(name)
                short = full.path.removeprefix(reference.OFFICIAL)
                _store(storage.repository(short), full.tag or reference.DEFAULT_TAG, image)
                names.append(f"{short}:{full.tag or reference.DEFAULT_TAG}")
    finally:
        os.close(descriptor)
        spool.unlink(missing_ok=True)
    return names


def _store(repository: Repository, tag: str, image: Any) -> None:
    from minirt.registry.storage import Manifest

    kind = "application/vnd.oci.image"
    layers = []
    for layer in image.layers:
        name = layer.digest
        if not name:
            whole = hashlib.sha256()
            for piece in layer.pieces():
                whole.update(piece)
            name = f"sha256:{whole.hexdigest()}"
        layers.append({"mediaType": layer.media_type(), "digest": name, "size": layer.size})
        _blob(repository, name, layer.pieces())
    config = f"sha256:{hashlib.sha256(image.config).hexdigest()}"
    _blob(repository, config, [image.config])
    data = image.manifest or json.dumps({
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", "digest": config, "size": len(image.config)},
        "layers": layers}).encode()
    repository.put_manifest(Manifest(f"{kind}.manifest.v1+json", data), [tag])


def _blob(repository: Repository, name: str, pieces: Iterable[bytes]) -> None:
    if os.path.exists(repository.blob_path(name)):
        return
    with repository.begin_upload("") as upload:
        upload.append(pieces)
        upload.finish(name)


def _reachable(host: str) -> str:
    """How others name this machine, where it listens at `host`: at every address ("", 0.0.0.0), the one by which it
    would go out."""
    if host not in ("", "0.0.0.0"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect(("192.0.2.1", 9))  # an address of nobody's (RFC 5737), to which nothing is sent: connect(2)
        except OSError:
            return "THIS-MACHINE"
        return str(way.getsockname()[0])


def serve(address: str, root: Path | None, images: list[Path]) -> int:
    """Be the classroom until Ctrl-C. `address`: HOST:PORT. Raises WorkshopError where that cannot be."""
    try:
        from minirt import state
        from minirt.errors import MinirtError
        from minirt.registry import garbage
        from minirt.registry import serve as transport
        from minirt.registry.storage import Storage
    except ModuleNotFoundError:
        raise WorkshopError("the classroom is a registry, which arrives with chapter 14.") from None
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise WorkshopError(f"{address}: an address is HOST:PORT, as 192.168.1.5:5000.")
    try:
        storage = Storage(str(root or f"{state.root()}/classroom"))
        held = garbage.hold(storage)
        offered = [name for path in images for name in offer(storage, path)]
        room = Classroom(storage)
        settings = transport.Settings(room.routes(), quiet=True)
        listener = transport.Listener((host.strip("[]") or "0.0.0.0", int(port)), storage, settings)
    except (MinirtError, OSError, OverflowError) as error:
        raise WorkshopError(f"the classroom cannot open: {error}.") from None
    there = f"{_reachable(host)}:{listener.address[1]}"
    print(f"The classroom is open: http://{there}/")
    if host.startswith("127."):
        print("Only this machine reaches it; for a room: --addr ADDRESS-OF-THIS-MACHINE:5000")
    for name in offered:
        print(f"  offers  {name}")
    print(f"""\
Whoever wants their progress on the page:  python -m chapters check --join http://{there}
So that their machines pull and push here without TLS, their /etc/minirt/config.json says:
  {{"insecure-registries": ["{there}"]}}
Everybody who reaches this address may push. Ctrl-C closes it.""", flush=True)
    transport.serve(listener)
    os.close(held)
    return 0
