"""Chapter 13, beyond: names of images come and go, and with the last name the image.

Sources: Docker's documentation of `docker rmi` and `docker tag`.
"""

from __future__ import annotations

from minirt.errors import BadInputError, ConflictError, NotFoundError
from minirt.images import listing, lookup, reference, store, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def tag(source: str, target: str) -> None:
    """Give the image `source` the further name `target` (`latest` when it has no tag), taking it from whoever had it.

    Raises NotFoundError, and BadInputError when `target` is no name for a tag.
    """
    try:
        wanted = reference.parse(target)
    except BadInputError as error:
        raise BadInputError(f"Error parsing reference: \"{target}\" is not a valid repository/tag: {error}") from None
    if wanted.digest:
        raise BadInputError("refusing to create a tag with a digest reference")
    with store.Work(), store.lock():
        identifier, full = lookup.resolve(source)
        index = lookup.read_index()
        mine = [each for each in index["manifests"] if listing.leads_to(each, identifier)]
        named = [each for each in mine if lookup.name_of(each) == full]
        store.place(index, (named or mine)[0], str(wanted.tagged()))
        store.write_index(index)
        listing.tell("tag", identifier, wanted.tagged().familiar())


def remove(name: str, force: bool = False) -> list[str]:
    """Remove an image's name, and with its last name the image: Docker's `rmi`. Return what was done, in its words.

    Raises NotFoundError, and ConflictError when it has several names and is meant by its id, or when containers use it
    and it would go: `force` removes it nevertheless (the layers stay until their users are gone). What a running
    container uses loses its name at most.
    """
    with store.Work() as work, store.lock():
        identifier, full = lookup.resolve(name)
        index = lookup.read_index()
        mine = [each for each in index["manifests"] if listing.leads_to(each, identifier)]
        names = [lookup.name_of(each) for each in mine if lookup.name_of(each)]
        users = usage.users(listing.Stored(identifier, mine))
        running = usage.running(listing.Stored(identifier, mine))
        short = identifier[7:19]
        done: list[str] = []
        if full and (len(names) > 1 or (force and running)):
            store.take_name(index, next(each for each in mine if lookup.name_of(each) == full))
            store.write_index(index)
            listing.tell("untag", identifier)
            return [f"Untagged: {listing.familiar(full)}"]
        if running and not full:
            raise ConflictError(f"conflict: unable to delete {short} (cannot be forced)"
                                f" - image is being used by running container {running[0][:12]}")
        if not force:
            if full and users:
                raise ConflictError(
                    f"conflict: unable to remove repository reference \"{listing.familiar(full)}\" (must force)"
                    f" - container {users[0][:12]} is using its referenced image {short}")
            if len(names) > 1:
                raise ConflictError(f"conflict: unable to delete {short} (must be forced)"
                                    " - image is referenced in multiple repositories")
            if users:
                raise ConflictError(f"conflict: unable to delete {short} (must be forced)"
                                    f" - image is being used by stopped container {users[0][:12]}")
        done += [f"Untagged: {listing.familiar(each)}" for each in names]
        for descriptor in mine:
            for digest in store.blobs(descriptor):
                work.handle(digest)
        index["manifests"] = [each for each in index["manifests"] if each not in mine]
        store.write_index(index)
        for _ in names:
            listing.tell("untag", identifier)
        done.append(f"Deleted: {identifier}")
        done += [f"Deleted: sha256:{chain}" for chain in store.collect(work)]
        listing.tell("delete", identifier)
        return done


def prune(images: Iterable[listing.Stored]) -> list[str]:
    """Remove images, those in use excepted, with all their names; return what was done, in Docker's words.

    What another command removes or begins to use meanwhile is left to it.
    """
    done: list[str] = []
    for image in images:
        if usage.users(image):
            continue
        try:
            for name in image.references[:-1]:
                done += remove(name)
            done += remove(image.references[-1] if image.references else image.id)
        except (ConflictError, NotFoundError):
            continue
    return done
