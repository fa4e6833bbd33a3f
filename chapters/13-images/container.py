"""The container program, chapter 13: its root comes from an image.

    container.py [--layout DIRECTORY] [COMMAND [ARG ...]]

DIRECTORY is an OCI image layout, as `skopeo copy IMAGE oci:DIRECTORY` writes it; its first image is run, by its own
command where none is given. Without --layout, an image of the command alone is made first, from this machine's files.
New in it: `make`, which puts an image together, and `unpack`, which takes one apart.
"""

import os
import shutil
import sys
import tempfile

from minirt import state
from minirt.errors import BadInputError, MinirtError
from minirt.images import blobs, documents, layer, pack, streams, tar, write
from minirt.kernel import process
from minirt.process import launch, spec


def make(layout: str, program: str) -> None:
    """Write an image of one layer to `layout`: a program of this machine, with the libraries that it needs."""
    files = pack.Tree()
    files.program(shutil.which(program) or program, f"/bin/{os.path.basename(program)}")
    archive = b"".join(write.archive(files.files()))
    config = state.dumps({"architecture": documents.architecture(), "os": "linux", "config": {"Cmd": [program]},
                          "rootfs": {"type": "layers", "diff_ids": [blobs.digest(archive)]}}).encode()
    manifest = state.dumps(documents.assemble(blobs.descriptor(documents.CONFIG_TYPE, config),
                                              [blobs.descriptor(documents.LAYER_TYPE, archive)])).encode()
    for blob in (archive, config, manifest):
        blobs.write(layout, blob)
    index = {"schemaVersion": 2, "manifests": [blobs.descriptor(documents.MANIFEST_TYPE, manifest)]}
    state.write_json(f"{layout}/index.json", index)


def unpack(layout: str, place: str) -> tuple[dict, list[str]]:
    """Unpack the first image of `layout` below `place`, each layer in a directory named by its chain id; return its
    configuration and those names, the topmost first."""
    first = state.read_json(f"{layout}/index.json")["manifests"][0]
    _, manifest = documents.follow(first, lambda each: state.loads(blobs.read(layout, each)))
    config = state.loads(blobs.read(layout, manifest["config"]))
    diff_ids, names, below = config["rootfs"]["diff_ids"], [], []
    for each, diff_id, chain in zip(manifest["layers"], diff_ids, blobs.chain_ids(diff_ids), strict=True):
        archive = b"".join(streams.decompress(iter([blobs.read(layout, each)])))
        if blobs.digest(archive) != diff_id:
            raise BadInputError(f"the layer {each['digest']} does not hold what the configuration says")
        os.makedirs(f"{place}/{chain}")
        target = os.open(f"{place}/{chain}", os.O_RDONLY | os.O_DIRECTORY)
        pieces = iter([archive])
        layer.unpack(tar.Stream(lambda pieces=pieces: next(pieces, b"")), target, below)
        names.insert(0, chain)
        below.insert(0, target)
    return config, names


def run(layout: str, command: list[str], place: str) -> int:
    """Run a command, or the image's own, in a container whose root is the image; return its exit code."""
    config, names = unpack(layout, f"{place}/layers")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{place}/{name}")
    own = config.get("config") or {}
    wanted = spec.default(command or (own.get("Entrypoint") or []) + (own.get("Cmd") or []), f"{place}/root", "box")
    wanted["process"]["env"] = own.get("Env") or wanted["process"]["env"]
    wanted["root"]["overlay"] = {"layers": f"{place}/layers", "lower": names, "upper": f"{place}/upper",
                                 "work": f"{place}/work"}
    waiting = launch.prepare(wanted)
    waiting.start()
    return process.exit_code(waiting.wait())


def main(arguments: list[str]) -> int:
    place = tempfile.mkdtemp(prefix="minirt-")
    layout = f"{place}/image"
    try:
        if arguments[:1] == ["--layout"]:
            layout, arguments = os.path.abspath(arguments[1]), arguments[2:]
            if not os.path.isfile(f"{layout}/index.json"):
                raise BadInputError(f"{layout} is no OCI image layout: it has no index.json")
        elif arguments and arguments[0].startswith("--"):
            sys.exit(f"container.py does not know {arguments[0]}")
        else:
            arguments = arguments or ["sh"]
            make(layout, arguments[0])
        return run(layout, arguments, place)
    except (MinirtError, OSError) as error:
        print(f"container.py: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    except (LookupError, TypeError, ValueError):
        print("container.py: --layout wants a directory in the form of an OCI image layout", file=sys.stderr)
        return 125
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
