"""What runs in a decoder process: one task after the other, under limits, until the pipe closes.

The limits keep a damaged or hostile file from hanging the run or eating the memory. They are no
sandbox: a file that takes the process over can do what its user can, save to write files.
"""

import importlib
import math
import os
import signal

from medkeras.files import frames
from medkeras.files.foreign import Unreadable

# The parent kills at the end of its time; this is for a parent that is gone.
GRACE = 2
# Exit code.
OUT_OF_MEMORY = 77


def main(tasks: dict, seconds: float, memory: int) -> None:
    """Answers requests on standard input until it is closed.

    Args:
        tasks: name of a task -> module with the function `task(data, **options)`, imported
            when it is first needed.
        seconds: time for one task; a few more, and the process ends itself.
        memory: address space, in bytes.
    """
    # Whatever a library prints would break the frames.
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    _limit(memory)
    with open(requests, "rb") as requests, open(answers, "wb", buffering=0) as answers:
        frames.send(answers, {"ready": True})
        while _answered(requests, answers, tasks, seconds):
            pass


def _limit(memory):
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, value in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        try:
            resource.setrlimit(kind, (value, value))
        except (ValueError, OSError):
            pass  # macOS knows RLIMIT_AS, but takes no value that is in use already


def _answered(requests, answers, tasks, seconds):
    try:
        request = frames.receive(requests)
        data = requests.read(request["size"])
        if len(data) < request["size"]:
            return False
        _alarm(math.ceil(seconds) + GRACE)
        header, arrays = _decoded(tasks[request["task"]], data, request["options"])
        _alarm(0)
        frames.send(answers, header, *map(frames.flat, arrays))
    except MemoryError:
        # Not an answer: the parent may still be sending what did not fit.
        os._exit(OUT_OF_MEMORY)
    except (EOFError, OSError):  # the parent is gone
        return False
    return True


def _decoded(module, data, options):
    try:
        task = importlib.import_module(module).task
    except ImportError as fault:
        reason = f"cannot be decoded here: {_short(fault)}"
        return {"refused": [reason, "install the missing package"]}, []
    try:
        facts, arrays = task(data, **options)
        return {"facts": facts, "arrays": frames.described(arrays)}, arrays
    except Unreadable as fault:
        return {"refused": [fault.reason, fault.remedy]}, []
    except MemoryError:
        raise
    except Exception as fault:  # parsers raise a dozen types on damaged bytes
        reason = f"is damaged: {type(fault).__name__}: {_short(fault)}"
        return {"refused": [reason, "copy or download it again"]}, []


def _short(fault):
    return " ".join(str(fault).split())[:200]


def _alarm(seconds):
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)
