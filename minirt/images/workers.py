"""Chapter 13, beyond: several layers at a time, each in a process of its own.

Threads would share one interpreter, and making ten thousand files is mostly the interpreter's work. A child gets all
it needs by fork, works, and says in one piece of JSON what came of it. When one fails the others are killed: what they
made lies below pending/, which is thrown away. None outlives its parent.

Manual pages: fork(2), prctl(2) PR_SET_PDEATHSIG, pipe(7) (what is this short is written whole).
"""

from __future__ import annotations

import os
import select

from minirt import errors, state
from minirt.errors import MinirtError
from minirt.kernel import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MOST = 3  # at a time, as Docker downloads


def several(jobs: Sequence[Callable[[], str]], most: int = MOST) -> list[str]:
    """What each job returns, in their order. They begin in that order, at most `most` at once; one alone is done here.

    Raises what a job raised, as far as it is one of minirt's errors or an OSError.
    """
    if len(jobs) < 2:
        return [job() for job in jobs]
    results: dict[int, str] = {}
    waiting = list(enumerate(jobs))
    running: dict[int, tuple[int, int]] = {}  # descriptor of a job's answer -> its number, its process
    poll = select.poll()
    try:
        while waiting or running:
            while waiting and len(running) < most:
                number, job = waiting.pop(0)
                hear, pid = _begin(job)
                running[hear] = number, pid
                poll.register(hear, select.POLLIN)
            for hear, _ in poll.poll():
                said = os.read(hear, select.PIPE_BUF)
                poll.unregister(hear)
                number, pid = running.pop(hear)
                os.close(hear)
                process.wait(pid)
                results[number] = _result(said)
    finally:
        for hear, (_, pid) in running.items():
            os.kill(pid, process.SIGKILL)
            process.wait(pid)
            os.close(hear)
    return [results[number] for number in range(len(jobs))]


def _begin(job: Callable[[], str]) -> tuple[int, int]:
    """(the descriptor on which the answer comes, the process)"""
    hear, speak = os.pipe()

    def child() -> int:
        process.die_with_parent()
        os.close(hear)
        try:
            answer: dict[str, object] = {"result": job()}
        except OSError as error:
            answer = {"errno": error.errno, "text": error.strerror or str(error)}
        except MinirtError as error:
            answer = {"error": type(error).__name__, "text": str(error)[:2000]}
        except BaseException as error:
            answer = {"error": "", "text": f"a mistake in minirt itself ({type(error).__name__}: {error})"[:2000]}
        os.write(speak, state.dumps(answer).encode())
        return 0

    pid = process.fork_call(child)
    os.close(speak)
    return hear, pid


def _result(said: bytes) -> str:
    if not said:
        raise MinirtError("a process of ours was killed")
    answer = state.loads(said)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["text"])
    if "error" in answer:
        kind = getattr(errors, answer["error"], MinirtError)
        raise kind(answer["text"])
    return str(answer["result"])
