"""The container program, chapter 14: its image comes from a registry.

    container.py [--pull IMAGE | --push IMAGE | --serve HOST:PORT] [COMMAND [ARG ...]]

--serve keeps a registry at that address until it is interrupted. --push makes an image of the command, from this
machine's files, and brings it to a registry; --pull brings one from there and runs it. IMAGE is HOST:PORT/NAME[:TAG].
With none of these it does all three, at a registry of its own that wants a token. New in it: `serve`, `push`, `pull`.
"""

import os
import runpy
import sys
import tempfile
import threading

from minirt import state
from minirt.errors import MinirtError
from minirt.images import blobs, reference
from minirt.registry import discover, serve
from minirt.registry.auth import Credentials
from minirt.registry.storage import Storage

try:
    from minirt.registry import client, pull, push
except ImportError as error:
    sys.exit(f"container.py: {error}: `make workshop` installs it")

HERE = os.path.dirname(os.path.abspath(__file__))
before = runpy.run_path(f"{HERE}/../13-images/container.py")  # `make` and `run` of an image in a directory
tokens = runpy.run_path(f"{HERE}/tokens.py")
USER = Credentials("ada", "analytical")


def find(image: str) -> tuple[client.Registry, reference.Reference]:
    """The registry that an image's name begins with, and the name taken apart."""
    name = reference.parse(image).tagged()
    return client.Registry(f"http://{name.domain}", credentials=USER), name


def push_image(layout: str, image: str) -> None:
    """Bring the first image of a layout to a registry: blobs first, then what names them."""
    registry, name = find(image)
    first = state.read_json(f"{layout}/index.json")["manifests"][0]
    content = blobs.read(layout, first)
    document = state.loads(content)
    for each in [*document["layers"], document["config"]]:
        data = blobs.read(layout, each)
        how, _ = push.push_blob(registry, name.path, each, lambda start, data=data: iter([data[start:]]))
        print(f"{each['digest'][7:19]}: {how}", file=sys.stderr)
    registry.put_manifest(name.path, name.tag, client.Manifest(content, first["mediaType"], first["digest"]))


def pull_image(layout: str, image: str) -> None:
    """Bring an image from a registry into a layout, each blob verified."""
    registry, name = find(image)
    found = pull.find(registry, name.path, name.tag)
    for each in [found.config, *found.layers]:
        blobs.write(layout, blobs.verify(b"".join(pull.fetch(registry, name.path, each)), each))
    blobs.write(layout, found.manifest.content)
    state.write_json(f"{layout}/index.json", {"schemaVersion": 2, "manifests": [
        blobs.descriptor(found.manifest.media_type, found.manifest.content)]})


def listen(address: str, place: str, **settings) -> serve.Listener:
    """A registry at HOST:PORT that keeps what it gets in a directory."""
    host, _, port = address.rpartition(":")
    return serve.Listener((host, int(port)), Storage(f"{place}/registry"), serve.Settings(**settings))


def all_three(place: str, command: str) -> None:
    """Serve, push and pull an image of the command."""
    registry = listen("127.0.0.1:0", place, routes=tokens["routes"]({USER.user: USER.password}), quiet=True)
    image = f"127.0.0.1:{registry.address[1]}/first/image"
    server = threading.Thread(target=registry.run)
    server.start()
    try:
        before["make"](f"{place}/made", command)
        push_image(f"{place}/made", image)
        pull_image(f"{place}/pulled", image)
    finally:
        registry.stop()
        server.join()


def main(option: str, image: str, *command: str) -> int:
    with tempfile.TemporaryDirectory(prefix="minirt-") as place:
        try:
            if option == "--serve":
                serve.serve(listen(image, place, routes=discover.routes()))
            elif option == "--push":
                before["make"](f"{place}/made", command[0] if command else "sh")
                push_image(f"{place}/made", image)
            else:
                if option == "--pull":
                    pull_image(f"{place}/pulled", image)
                else:
                    all_three(place, command[0])
                return before["run"](f"{place}/pulled", list(command), place)
            return 0
        except (MinirtError, OSError, ValueError) as error:
            print(f"container.py: {error}", file=sys.stderr)
            return getattr(error, "exit_code", 1)


if __name__ == "__main__":
    given = sys.argv[1:] or ["sh"]
    if given[0].startswith("--") and not (given[0] in ("--pull", "--push", "--serve") and given[1:]):
        print("container.py: --pull IMAGE, --push IMAGE, --serve HOST:PORT, or a command alone", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(*given) if given[0].startswith("--") else main("", "", *given))
