"""Runs decoders in child processes: a hang or a crash costs the one file that caused it.

Children have no TensorFlow, start on first use, serve one file after the other, and end with
this process. What happens in them: `serve`; what is exchanged: `frames`.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np

from medkeras.errors import ResourceError
from medkeras.files import frames, serve
from medkeras.files.foreign import Unreadable, printable

# The closed list: a child runs nothing else.
TASKS = {
    "picture": "medkeras.files.decode",
    "volume": "medkeras.files.volume",
    "dicom": "medkeras.files.dicom",
}
SECONDS = 20.0
MEMORY = 3 * 2**30
SECONDS_TO_START = 60.0

# Isolated from PYTHON* variables, the working folder and `.pth` files; told where to look.
FLAGS = ("-I", "-S", "-B")
START = """
import json, sys
given = json.loads(sys.argv[1])
sys.path[:] = given.pop("path")
from medkeras.files import serve
serve.main(**given)
"""
# All that a child gets of the environment; tokens and keys stay here.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")


def run(task: str, data: bytes, /, **options) -> tuple[dict, list[np.ndarray]]:
    """Runs a decoder on a file's content in a child process.

    Safe from several threads, each with a child of its own, at most one for each core.

    Args:
        task: name in `TASKS`.
        data: the file's content.
        options: of the task; what JSON can say.

    Returns:
        What the task returns: facts that JSON can say, and arrays. Not checked beyond size
        and type: a child that a hostile file took over can answer anything.

    Raises:
        Unreadable: the decoder refused the file, hung, crashed or needed too much memory.
        ResourceError: no child can be started.
    """
    return _pool.run(task, data, **options)


def close() -> None:
    """Ends the children, which frees their memory; the next `run` starts new ones."""
    _pool.close()


class Pool:
    """Child processes under one set of limits.

    Args:
        tasks: name -> module with `task(data, **options) -> (facts, arrays)`.
        seconds: time for one file.
        memory: address space of a child in bytes, where the system can limit it.
        children: how many at most; the number of cores if None.
    """

    def __init__(self, tasks=TASKS, *, seconds=SECONDS, memory=MEMORY, children=None):
        self._tasks, self._seconds, self._memory = dict(tasks), seconds, memory
        self._children = children or os.cpu_count() or 1
        self._fresh()

    def _fresh(self):
        self._idle, self._all = [], set()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(self._children)

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        self.close()

    def run(self, task, data, /, **options):
        """Does what the function `run` of this module says."""
        if task not in self._tasks:
            raise ValueError(f"{task!r} is no task; there are {sorted(self._tasks)}")
        request = {"task": task, "options": options, "size": len(data)}
        with self._places:
            child = self._idle_one() or self._started()
            try:
                answer = self._asked(child, request, data)
            except _Died as death:
                if not (child.served and death.worth_a_retry):
                    raise Unreadable(death.reason, death.remedy) from None
                # Perhaps an earlier file left the damage: a fresh child tells whose fault it is.
                try:
                    answer = self._asked(self._started(), request, data)
                except _Died as death:
                    raise Unreadable(death.reason, death.remedy) from None
        facts, arrays, refused = answer
        if refused:
            raise Unreadable(*refused)
        return facts, arrays

    def close(self):
        """Ends the idle children now, and the busy ones when they have answered."""
        with self._lock:
            idle, self._idle, self._all = self._idle, [], set()
        for child in idle:
            child.kill()

    def forget(self):
        """Lets go of the children after a fork: they are the parent's."""
        for child in self._all:
            child.forget()
        self._fresh()

    def _idle_one(self):
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _started(self):
        child = _Child(self._tasks, self._seconds, self._memory)
        with self._lock:
            self._all.add(child)
        return child

    def _asked(self, child, request, data):
        try:
            answer = child.ask(request, data)
        except BaseException:  # Ctrl-C too: half an answer may be in the pipe
            with self._lock:
                self._all.discard(child)
            child.kill()
            raise
        with self._lock:
            kept = child in self._all
            if kept:
                self._idle.append(child)
        if not kept:
            child.kill()
        return answer


class _Died(Exception):
    def __init__(self, reason, remedy, worth_a_retry=True):
        super().__init__(reason)
        self.reason, self.remedy, self.worth_a_retry = reason, remedy, worth_a_retry


class _Child:
    """One process and the pipes to it; used by one thread at a time."""

    def __init__(self, tasks, seconds, memory):
        self.served = 0
        self._seconds, self._memory = seconds, memory
        given = {"path": _path(), "tasks": tasks, "seconds": seconds, "memory": memory}
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        # A pool of threads in every child would only fight the other children for the cores.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                [sys.executable, *FLAGS, "-c", START, json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
                # Ctrl-C in the terminal is for this process to handle.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as fault:
            raise ResourceError(f"the decoder process does not start: {fault}") from fault
        try:
            with _deadline(self._process, SECONDS_TO_START):
                frames.receive(self._process.stdout)
        except BaseException as fault:
            self._process.kill()
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            self.kill()
            if not isinstance(fault, (EOFError, frames.Malformed)):
                raise
            last = said[-1] if said else f"exit code {self._process.returncode}"
            raise ResourceError(f"the decoder process does not start: {last}") from None
        self._process.stderr.close()

    def ask(self, request, data):
        """Sends a file and returns (facts, arrays, None) or (None, None, (reason, remedy))."""
        pipes = self._process.stdin, self._process.stdout
        with _deadline(self._process, self._seconds) as expired:
            try:
                frames.send(pipes[0], request, data)
                answer = frames.receive(pipes[1])
                arrays = frames.receive_arrays(pipes[1], answer.get("arrays", []))
            except frames.Malformed:
                raise _Died("confuses the decoder", "save it anew, or remove the file") from None
            except (OSError, EOFError):
                raise self._death(expired.is_set()) from None
        self.served += 1
        if isinstance(answer.get("facts"), dict):
            return answer["facts"], arrays, None
        refused = answer.get("refused")
        if not isinstance(refused, list) or len(refused) != 2:
            raise _Died("confuses the decoder", "save it anew, or remove the file")
        return None, None, tuple(printable(str(text), " ")[:400] for text in refused)

    def _death(self, hung):
        if hung:
            return _Died(
                f"took longer than {self._seconds:g} s to decode",
                "save it anew, or remove the file",
                worth_a_retry=False,
            )
        try:
            code = self._process.wait(SECONDS_TO_START)
        except subprocess.TimeoutExpired:  # closed its pipes, but lives
            code = 0
        if code == serve.OUT_OF_MEMORY:
            return _Died(
                f"needs more than {self._memory / 2**30:.3g} GiB to decode",
                "save the picture smaller, or remove the file",
            )
        how = f"exit code {code}"
        if code < 0:
            name = next((s.name for s in signal.Signals if s == -code), "unknown")
            how = f"signal {-code}, {name}"
        return _Died(f"crashed the decoder ({how})", "save it anew, or remove the file")

    def kill(self):
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()

    def forget(self):
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()
        # Not ours to wait for: the object would warn that the process still runs.
        self._process.returncode = 0


@contextmanager
def _deadline(process, seconds):
    """Kills `process` after some time; a dead one closes the pipes that others wait for."""
    expired = threading.Event()

    def end():
        expired.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _path():
    """Returns where this process finds modules, medkeras itself included."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = [os.path.abspath(place) for place in sys.path if place]
    return found if root in found else [*found, root]


def _forget():
    _pool.forget()


_pool = Pool()
atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
