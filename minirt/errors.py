"""Ground floor: every way in which minirt says no.

One hierarchy. `str(error)` is the whole sentence for the user: what was asked, what is wrong, what to do. Each class
knows the exit code that Docker gives to its kind; `run`, `create` and `exec` turn a plain 1 into 125, because there a
small number could be the command's own.
"""

from __future__ import annotations


class MinirtError(Exception):
    """Something that minirt refuses or cannot do; `str()` is the sentence, `exit_code` what the process returns."""

    exit_code = 1


class UsageError(MinirtError):
    """The command line itself is wrong: an unknown flag, a bad value, a missing argument."""

    exit_code = 125


class NotFoundError(MinirtError):
    """No such container, image, volume or network."""


class ConflictError(MinirtError):
    """The name is taken, the thing is in use, or it is in a state that does not allow this."""


class BadInputError(MinirtError):
    """An archive, a file or a document from outside is broken or hostile."""


class TemplateError(MinirtError):
    """What follows `--format` is no template, or does not fit what is shown; in the words of Go's package."""


class KernelError(MinirtError):
    """The kernel refused: an OSError together with what was being done."""

    @classmethod
    def of(cls, doing: str, error: OSError, advice: str = "") -> KernelError:
        """Make the sentence from what was being done (`doing`, a gerund: "mounting /proc"), the OSError and a hint."""
        sentence = f"{doing}: {error.strerror or error}"
        return cls(f"{sentence}; {advice}" if advice else sentence)


class CannotInvokeError(MinirtError):
    """The command exists in the container but cannot be executed there (Docker's exit code 126)."""

    exit_code = 126


class CommandNotFoundError(MinirtError):
    """The command does not exist in the container (Docker's exit code 127)."""

    exit_code = 127


def place_of(error: BaseException) -> str:
    """Where an exception was raised, as `FILE:LINE`: the innermost frame, found without reading any source file."""
    at = error.__traceback__
    if at is None:
        return "unknown place"
    while at.tb_next:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}"


def told(error: BaseException) -> tuple[int, str]:
    """Any exception as (exit code, sentence): a MinirtError's own; for an OSError what was being done, as far as
    `trace.narrated` has noted it, and why the kernel refused; for a mistake in a program its kind and place."""
    if isinstance(error, MinirtError):
        return error.exit_code, str(error)
    if isinstance(error, NotImplementedError):
        return 125, str(error)
    if isinstance(error, OSError):
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
        doing = "".join(f"{note}: " for note in getattr(error, "__notes__", [])[:1])
        return 125, doing + what
    return 125, f"{type(error).__name__}: {error} ({place_of(error)})"
