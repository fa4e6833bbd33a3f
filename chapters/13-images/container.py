"""The container program, chapter 13: its root comes from an image.

    container.py [--layout DIRECTORY] [COMMAND [ARG ...]]

Runs the first image in DIRECTORY, an OCI image layout as `skopeo copy IMAGE oci:DIRECTORY` writes it, by its own
command if none is given. Without --layout, it makes an image of COMMAND first. New: `make` and `unpack`.
"""

import io
import os
import shutil
import sys
import tempfile

from minirt import errors, state
from minirt.images import blobs, documents, layer, pack, streams, tar, write
from minirt.kernel import process
from minirt.process import launch, spec


def make(layout: str, program: str) -> None:
    """Write an image of one layer to `layout`: a program of this machine, with the libraries that it needs."""
    def put(media_type: str, data: bytes) -> dict:
        return blobs.descriptor(media_type, data) | {"digest": blobs.write(layout, data)}

    files = pack.Tree()
    files.program(shutil.which(program) or program, f"/bin/{os.path.basename(program)}")
    archive = b"".join(write.archive(files.files()))
    config = {"architecture": documents.architecture(), "os": "linux", "config": {"Cmd": [program]},
              "rootfs": {"type": "layers", "diff_ids": [blobs.digest(archive)]}}
    manifest = documents.assemble(put(documents.CONFIG_TYPE, state.dumps(config).encode()),
                                  [put(documents.LAYER_TYPE, archive)])
    state.write_json(f"{layout}/index.json", {
        "schemaVersion": 2, "manifests": [put(documents.MANIFEST_TYPE, state.dumps(manifest).encode())]})


def unpack(layout: str, place: str) -> tuple[dict, list[str]]:
    """Unpack an image below `place`, each layer in a directory named by its chain id; return its configuration and
    those names, the topmost first."""
    first = state.read_json(f"{layout}/index.json")["manifests"][0]
    _, manifest = documents.follow(first, lambda each: state.loads(blobs.read(layout, each)))
    config = state.loads(blobs.read(layout, manifest["config"]))
    diff_ids, below = config["rootfs"]["diff_ids"], []
    chains = blobs.chain_ids(diff_ids)
    for each, diff_id, chain in zip(manifest["layers"], diff_ids, chains, strict=True):
        archive = b"".join(streams.decompress(iter([blobs.read(layout, each)])))
        blobs.verify(archive, {"digest": diff_id, "size": len(archive)})
        os.makedirs(f"{place}/{chain}")
        target = os.open(f"{place}/{chain}", os.O_RDONLY | os.O_DIRECTORY)
        layer.unpack(tar.Stream(io.BytesIO(archive).read), target, below)
        below.insert(0, target)
    return config, chains[::-1]


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
    with tempfile.TemporaryDirectory(prefix="minirt-") as place:
        if arguments[:1] == ["--layout"] and len(arguments) > 1:
            return run(os.path.abspath(arguments[1]), arguments[2:], place)
        if arguments and arguments[0].startswith("-"):
            raise errors.BadInputError("use it so: container.py [--layout DIRECTORY] [COMMAND [ARG ...]]")
        make(f"{place}/image", arguments[0] if arguments else "sh")
        return run(f"{place}/image", arguments, place)


if __name__ == "__main__":
    sys.excepthook = lambda kind, error, trace: print("container.py:", errors.told(error)[1], file=sys.stderr)
    sys.exit(main(sys.argv[1:]))
