"""Chapter 17: the monitor: one small process for each container, its parent, for its whole life.

It is forked from the command (`run`, `start`) before anything heavy is imported, and leads a session of its own, so
it stays when the command or its terminal goes. It holds the container's lock, owns its pipes or its terminal (what
flows through them is `traffic`), waits, records how it ended, and cleans up. There is no daemon: as many containers,
so many monitors.

    command ---fork--- monitor ---clone--- process 1 of the container
       |   messages       |    pipes, pidfd

What must be true at which moment:

- the lock is held before the container's directory exists, and is given back only by the end of this process;
- `config.json` is on the disk before "started" is told, the outcome before "die" and the exit code are told;
- the container counts as running (`running.json`) when its walls stand, and before its command can do anything: else
  `exec` could enter what is half built; and the socket is open before that, since whoever sees it run may call.

Manual pages: setsid(2), pidfd_open(2), waitid(2).
"""

from __future__ import annotations

import os

from minirt import state, trace
from minirt.cgroups import tree
from minirt.containers import record, specify
from minirt.containers.peer import Peer
from minirt.errors import MinirtError
from minirt.process import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHAPTER = 17


class Monitor:
    """The life of one container.

    `lock`: the container's, held. `fresh`: whether the command that forked this monitor also makes the container.
    `hear`, `speak`: the line to the command.
    """

    def __init__(self, id: str, lock: state.Lock, fresh: bool, hear: int, speak: int) -> None:
        self.id, self.lock, self.fresh = id, lock, fresh
        self.command = Peer(hear, speak)
        self.early: list[dict[str, Any]] = []  # messages that came before the container was there

    def live(self) -> int:
        """From the making of the container to its end. Returns the exit code of the monitor itself."""
        tree.devices.load_ahead()  # while the command still puts its configuration together
        order = self.told_to_begin()
        if order is None:
            return self.command_is_gone()
        self.container = record.Container(self.id, order["begin"])
        self.config, self.host = self.container.config["Config"], self.container.config["HostConfig"]
        try:
            self.prepare()
            try:
                self.begin(order)
            except BaseException:
                self.handle.kill()
                self.handle.wait()
                raise
        except (MinirtError, OSError) as error:
            self.fail(error)
            return 1
        self.serve()
        self.end()
        return 0

    @property
    def removes(self) -> bool:
        """Whether the container goes with its end: `--rm`, or somebody wants it away."""
        return bool(self.host["AutoRemove"])

    # -- what the command says -------------------------------------------------------------------------------------

    def told_to_begin(self) -> dict[str, Any] | None:
        """Waits for the order to begin. None when the command has nothing to begin, or is gone."""
        while True:
            messages = self.command.ear.hear()
            if messages is None:
                return None
            self.early += [message for message in messages if "begin" not in message]
            for message in messages:
                if "begin" in message:
                    return message

    def command_is_gone(self) -> int:
        """Takes back what was made of a new container."""
        from minirt.containers import erase

        if self.fresh:
            erase.erase(record.Container(self.id, {}), self.lock)
        return 1

    def hear_filter(self) -> bytes:
        """Waits for the system call filter. The command assembles it: it has nothing else to do now, and the tables
        that it takes would stay in the monitor's memory. Raises MinirtError when the command is gone.
        """
        while True:
            for message in self.early:
                if "filter" in message:
                    return bytes.fromhex(message["filter"])
            messages = self.command.ear.hear()
            if messages is None:
                raise MinirtError("the command that started the container was lost")
            self.early += messages

    def let_narrate(self) -> None:
        """Waits until the command has printed the steps so far: what the container says meanwhile waits in its
        pipes.
        """
        self.command.say({"walls": 1})
        while True:
            messages = self.command.ear.hear()
            if messages is None or any("go" in message for message in messages):
                return
            self.early += messages

    # -- the beginning ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Forks the container's process, into its control group; it builds its walls from now on. Raises MinirtError or
        OSError.
        """
        self.spec = specify.specification(self.container)
        self.spec["linux"]["seccomp"] = None  # the command assembles the filter meanwhile: `hear_filter`
        self.group = tree.group(self.container.group_name)
        self.group.create(self.spec["linux"]["resources"])
        if not (self.group.guarded or self.host["Privileged"]):
            tree.devices.do_without(self.spec)
        if state.ordinary():
            self.become_root()
        theirs, self.pipes = self.make_pipes()
        self.handle = launch.prepare(self.spec, theirs, self.group)
        for descriptor in set(theirs):
            os.close(descriptor)

    def become_root(self) -> None:
        """An ordinary user's monitor becomes root of a user namespace of his, in which the container is built
        (chapter 07); after the control group was made, which is his outside. A container that joins another one's
        namespaces shares its user namespace, to which they belong.
        """
        from minirt.namespaces import rootless

        paths = [entry["path"] for entry in self.spec["linux"]["namespaces"] if "path" in entry]
        rootless.enter(beside=int(paths[0].split("/")[2]) if paths else 0)
        if "IDMappings" in self.host:
            from minirt.containers import keep

            keep.prepare(self.container, self.spec)

    def make_pipes(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The container's ends of its standard input, output and error, and ours, -1 where there is none. A container
        with a terminal needs none.
        """
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if self.config["Tty"]:
            return (null, null, null), (-1, -1, -1)
        theirs, ours = null, -1
        if self.config["OpenStdin"]:
            theirs, ours = os.pipe()
            os.set_blocking(ours, False)
            os.close(null)
        out, out_theirs = os.pipe()
        err, err_theirs = os.pipe()
        if "IDMappings" in self.host and not state.ordinary():
            from minirt.containers import remap

            remap.give_pipes(self.host, (theirs, out_theirs, err_theirs))
        return (theirs, out_theirs, err_theirs), (ours, out, err)

    def begin(self, order: dict[str, Any]) -> None:
        """Starts the container whose process builds its walls. Raises MinirtError or OSError when it cannot be started.
        """
        # What follows costs nothing while the walls are built, nor does what is loaded for later.
        from minirt.containers import traffic

        self.traffic = traffic.Traffic(self.container, self.handle, self.pipes)
        self.traffic.listen()
        from minirt.containers import repair, streams  # noqa: F401  (both came with `traffic`: `install.PIECES`)

        self.record_start()
        self.traffic.peers.append(self.command)
        self.traffic.attach(self.command, tuple(order["streams"]), order["keys"])
        streams.leave_shell()
        self.handle.ready()
        if self.handle.master >= 0:
            self.traffic.use_terminal(self.command, self.config["OpenStdin"] or order["streams"][0])
        self.handle.filter = self.hear_filter()
        if launch.shared_pid(self.spec):  # then the command will be a child of the process that waits now
            self.handle.start()
            self.record_process()
        else:
            self.record_process()
            self.handle.start()
        if trace.enabled():
            self.let_narrate()
        if not order["detached"]:
            self.container.tell("attach")
        self.container.tell("start")
        self.command.say({"started": self.container.id})
        for message in self.early:
            self.traffic.obey(self.command, message)
        if order["detached"]:
            self.traffic.drop(self.command)

    @trace.narrated(CHAPTER, "write down what is about to run", "config.json")
    def record_start(self) -> None:
        """Writes the configuration, synced unless it goes with the container."""
        self.container.config["Started"] = state.now()
        self.container.save(sync=not self.removes)
        if self.fresh:
            self.container.tell("create")

    @trace.narrated(CHAPTER, "write down what runs: process, cgroup", "running.json")
    def record_process(self) -> None:
        """Writes what ends with a reboot: who watches, the first process, its cgroup."""
        running = {
            "started": self.container.config["Started"],
            "monitor": state.identity(),
            "pid": state.identity(self.handle.pid),
            "cgroup": self.group.path,
        }
        state.write_json(f"{self.container.run_directory}/running.json", running, sync=False)

    def fail(self, error: MinirtError | OSError) -> None:
        """The container could not be started: takes back what was begun, tells the command why."""
        if isinstance(error, MinirtError):
            code, sentence = error.exit_code, str(error)
        else:
            about = f": {error.filename}" if error.filename else ""
            code, sentence = 125, f"{error.strerror or error}{about}"
        code = 125 if code == 1 else code
        from minirt.containers import erase

        try:
            if self.removes:
                erase.destroy(self.container, self.lock)
            else:
                self.write_outcome("exited" if self.was_run() else "created", code, sentence)
                erase.remove_group(self.container)
        except OSError:
            pass  # a full disk is the likely reason for both; the next command repairs
        finally:
            self.command.say({"error": sentence, "code": code})

    def was_run(self) -> bool:
        """Whether an earlier run of this container has ended."""
        outcome = self.container.outcome()
        return outcome is not None and outcome.get("status") == "exited"

    # -- the middle and the end ------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Lets the traffic flow until the container's first process has ended."""
        import gc

        gc.freeze()  # what was loaded stays: it need not be looked through
        gc.enable()  # from here on it lives long
        self.traffic.serve()

    def end(self) -> None:
        """Reads what is left, records the end, tells it, cleans up."""
        from minirt.containers import erase, repair
        from minirt.kernel import process

        code = process.exit_code(self.handle.wait())
        if self.host["PidMode"]:
            self.group.kill()  # without a pid namespace of its own the others did not die with the first
        self.traffic.finish()
        out_of_memory = bool(self.group.oom_kills())
        if self.removes:
            erase.vanish(self.container)
        else:
            try:
                self.write_outcome("exited", code, "", out_of_memory)
            except OSError:
                pass  # a full disk: the client is told all the same, and the next command repairs the record
        if out_of_memory:
            self.container.tell("oom")
        lasted = state.parse_time(state.now()) - state.parse_time(self.container.config["Started"])
        self.container.tell("die", exitCode=code, execDuration=int(lasted))
        self.traffic.hang_up(code)
        if self.removes:
            erase.clean(self.container)
            self.container.tell("destroy")
        else:
            erase.remove_group(self.container)
        repair.sweep(lost=False)  # what others left half done: nobody waits for this process any more

    @trace.narrated(CHAPTER, "write down how it ended: {status}, {code}", "outcome.json")
    def write_outcome(self, status: str, code: int, error: str, out_of_memory: bool = False) -> None:
        """Records how this run ended, synced, and that nothing runs any more."""
        end = {
            "status": status,
            "started": self.container.config["Started"],
            "finished": state.now(),
            "code": code,
            "error": error,
        }
        if out_of_memory:
            end["oom"] = True
        state.write_json(f"{self.container.directory}/outcome.json", end)
        if not os.path.exists(f"{self.container.directory}/config.json"):
            self.container.save()
        try:
            os.unlink(f"{self.container.run_directory}/running.json")
        except FileNotFoundError:
            pass
