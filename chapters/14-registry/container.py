"""The container program, chapter 14: its image comes from a registry.

    container.py [--pull IMAGE | --push IMAGE] [COMMAND [ARG ...]]

--push makes an image of the command, from this machine's files, and brings it to a registry; --pull brings one from
there and runs it. IMAGE is HOST:PORT/NAME[:TAG]. With neither it does both, at a registry of its own, with tokens.
"""

import os
import runpy
import sys
import tempfile

from minirt import errors, state
from minirt.images import blobs, reference

try:
    from minirt.registry import auth, client, pull, push
except ImportError as error:
    sys.exit(f"container.py: {error}: `make workshop` installs it")

HERE = os.path.dirname(os.path.abspath(__file__))
before = runpy.run_path(f"{HERE}/../13-images/container.py")  # `make` and `run` of an image in a directory
tokens = runpy.run_path(f"{HERE}/tokens.py")                  # a registry, and who gives tokens for it
ADA = auth.Credentials("ada", "analytical")


def push_image(layout: str, registry: client.Registry, name: reference.Reference) -> None:
    """Bring the first image of a layout to a registry: blobs first, then what names them."""
    first = state.read_json(f"{layout}/index.json")["manifests"][0]
    content = blobs.read(layout, first)
    document = state.loads(content)
    for each in [*document["layers"], document["config"]]:
        data = blobs.read(layout, each)
        how, _ = push.push_blob(registry, name.path, each, lambda start, data=data: iter([data[start:]]))
        print(f"{each['digest'][7:19]}: {how}", file=sys.stderr)
    registry.put_manifest(name.path, name.tag, client.Manifest(content, first["mediaType"], first["digest"]))


def pull_image(layout: str, registry: client.Registry, name: reference.Reference) -> None:
    """Bring an image from a registry into a layout, each blob verified."""
    found = pull.find(registry, name.path, name.tag)
    for each in [found.config, *found.layers]:
        blobs.write(layout, blobs.verify(b"".join(pull.fetch(registry, name.path, each)), each))
    blobs.write(layout, found.manifest.content)
    described = blobs.descriptor(found.manifest.media_type, found.manifest.content)
    state.write_json(f"{layout}/index.json", {"schemaVersion": 2, "manifests": [described]})


def main(option: str, image: str, *command: str) -> int:
    with tempfile.TemporaryDirectory(prefix="minirt-") as place:
        if not option:
            with tokens["running"](place, ADA) as address:
                main("--push", f"{address}/first/image", *command)
                return main("--pull", f"{address}/first/image", *command)
        name = reference.parse(image).tagged()
        registry = client.Registry(f"http://{name.domain}", credentials=ADA)
        if option == "--pull":
            pull_image(f"{place}/image", registry, name)
            return before["run"](f"{place}/image", list(command), place)
        before["make"](f"{place}/image", command[0] if command else "sh")
        push_image(f"{place}/image", registry, name)
        return 0


if __name__ == "__main__":
    given = sys.argv[1:] or ["sh"]
    if not given[0].startswith("--"):
        given = ["", "", *given]
    elif given[0] not in ("--pull", "--push") or len(given) == 1:
        sys.exit("container.py: --pull IMAGE, --push IMAGE, or a command alone")
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main(*given))
