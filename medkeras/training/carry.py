"""How a run is carried out, and how a script ends: status, message and exit code."""

import copy
import errno
import logging
import signal
import traceback

import keras
import pandas as pd
from filelock import FileLock, Timeout

from medkeras.errors import Busy, DataError, Diverged, Interrupted, MedkerasError, ResourceError
from medkeras.files import atomic
from medkeras.training import environment, folder, outcome, parts, terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def carry_out(run, main) -> int:
    """Calls `main(run)`, or once for each part of a run of several; keeps `status.json` true.

    Args:
        run: `runs.Run`.
        main: of the experiment's page.

    Returns:
        The exit code.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        owner = folder.read(run.folder / "status.json")
        terminal.error(
            f"{run.folder} is being written by process {owner.get('pid', 'unknown')} on "
            f"{owner.get('host', 'unknown')}"
        )
        return Busy.exit_code
    with lock:
        if run.resumed and folder.read(run.folder / "status.json")["status"] == "finished":
            run.say("the run is finished; there is nothing to resume")
            code = 0
        else:
            code = _guarded(run, main)
    print(run.folder, flush=True)
    return code


def _guarded(run, main):
    run.terminal.folder = run.folder
    spoken = terminal.Spoken(run.terminal)
    logging.getLogger("medkeras").addHandler(spoken)
    handlers = {number: signal.signal(number, run.stop) for number in SIGNALS}
    policy = keras.config.dtype_policy()
    try:
        run.begin()
        if run.several:
            _in_parts(run, main)
        else:
            with environment.scope(run.flags.strategy):
                main(run)
                _tell(run)
    except BaseException as fault:
        return _failed(run, fault)
    else:
        run.status("finished")
        return 0
    finally:
        keras.config.set_dtype_policy(policy)
        logging.getLogger("medkeras").removeHandler(spoken)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _in_parts(run, main):
    diverged = []
    for part in run.several:
        own = copy.copy(run)
        own.part, own.folder = part, run.folder / part.name
        own.flags = parts.flags_of(run.flags, part)
        own.resumed = folder.holds_a_run(own.folder)
        own.fresh()
        own.terminal = terminal.Terminal(own.folder)
        run.say(f"{part.name}: {part.words}")
        status = folder.read(own.folder / "status.json").get("status")
        if run.resumed and status == "finished":
            continue
        own.folder.mkdir(exist_ok=True)
        # A model of the part before would change the names, and so the order, of layers.
        keras.utils.clear_session()
        own.begin()
        try:
            with environment.scope(run.flags.strategy):
                main(own)
                _tell(own)
        except Diverged as fault:
            own.status("failed", reason=str(fault))
            if not part.values:
                raise
            # Of a grid the others go on: that one diverges is an answer too.
            run.say(f"{part.name}: {fault}")
            diverged.append(fault)
            continue
        except BaseException:
            own.status("interrupted" if run.stopping() else "failed", reason="see the log")
            raise
        own.status("finished")
    run.say(parts.summary(run.folder, run.several, run.compare))
    if diverged:
        raise diverged[0]


def _tell(run):
    if said := outcome.line(run.folder):
        run.say(said)


def _failed(run, fault):
    fault = _foreseen(run, fault)
    if isinstance(fault, Interrupted):
        run.status("interrupted", reason=str(fault))
        run.say(str(fault))
    elif isinstance(fault, MedkerasError):
        run.status("failed", reason=str(fault))
        if isinstance(fault, DataError):
            rows = pd.DataFrame([problem.as_dict() for problem in fault.problems])
            atomic.write_csv(run.folder / "problems.csv", rows)
            run.terminal.problems(fault.problems, run.data)
            run.say("nothing was trained; --skip-bad goes on without broken files")
        else:
            run.say(f"{run.experiment}: {fault}")
    else:
        run.status("failed", reason=f"{type(fault).__name__}: {fault}")
        traceback.print_exception(fault)
    return getattr(fault, "exit_code", 1)


def _foreseen(run, fault):
    import tensorflow as tf

    if isinstance(fault, InterruptedError | KeyboardInterrupt):
        return Interrupted(next(iter(run.signals), signal.SIGINT))
    if isinstance(fault, MemoryError | tf.errors.ResourceExhaustedError):
        return ResourceError("out of memory: use a smaller batch or --image-size")
    if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"no room left on the disk: {fault}; free some, then --resume")
    return fault
