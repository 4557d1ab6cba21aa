#!/usr/bin/env python3
"""Sets up what medkeras needs, once, and runs something in it.

python3 run.py demo [flags]               trains on sample data and writes a report
python3 run.py test [--all] [flags]       the tests; --all adds the slow ones
python3 run.py experiments/NAME.py [...]  an experiment; --help shows its flags
python3 run.py -m MODULE [...]            a module, such as tensorboard.main --logdir saved_models
python3 run.py setup                      only sets up
python3 run.py lint [--fix]               style, as CI checks it
python3 run.py lock [--upgrade]           makes the locks anew from pyproject.toml; needs uv
python3 run.py --gpu ...                  any of these with CUDA (Linux, NVIDIA driver 525 or later)

The first call makes the folder .venv from requirements.txt (.venv-gpu from requirements-gpu.txt),
with uv where it is installed and pip otherwise. Later calls start at once; a changed lock or an
interrupted set-up is noticed and mended. Exit codes are those of what is run; 2: wrong usage or
wrong Python, 4: set-up failed, with the reason.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# This file must be readable by any Python from 3.6 on, to say which one it needs.
PYTHONS = ((3, 11), (3, 12), (3, 13))
ROOT = Path(__file__).resolve().parent
DEV_LOCK = "requirements-dev.txt"
DEV_COMMANDS = ("test", "lint")
# Written first and completed last: a folder whose mark is not complete is not trusted.
MARK = "medkeras-setup.json"
LOG = "setup.log"
WINDOWS = os.name == "nt"


class SetupError(Exception):
    """A foreseeable fault: a message for the user, and the exit code."""

    def __init__(self, message, exit_code=4):
        super().__init__(message)
        self.exit_code = exit_code


def say(message):
    print(message, file=sys.stderr, flush=True)


def main(arguments):
    """Sets up and runs; returns the exit code where the process is not replaced."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0
    try:
        check_python(sys.version_info[:3], arguments)
        gpu = arguments[0] == "--gpu"
        if gpu:
            arguments = arguments[1:]
        if not arguments:
            raise SetupError("--gpu needs a command: python3 run.py --gpu demo", 2)
        if arguments[0] == "lock":
            return lock(arguments[1:])
        commands = [] if arguments[0] == "setup" else python_commands(arguments)
        python = environment(ROOT, gpu, dev=arguments[0] in DEV_COMMANDS)
        if arguments[0] == "setup":
            print(python)
            return 0
        if arguments[0] in DEV_COMMANDS:
            os.chdir(str(ROOT))
        variables = variables_for(python)
        for command in commands[:-1]:
            code = subprocess.call([str(python)] + command, env=variables)
            if code:
                return code
        return replace_process([str(python)] + commands[-1], variables)
    except SetupError as error:
        say("run.py: {}".format(error))
        return error.exit_code
    except OSError as error:
        say("run.py: {}".format(error))
        return 4
    except KeyboardInterrupt:
        say("run.py: stopped; the next call goes on")
        return 130


def python_commands(arguments):
    """Returns the argument lists to hand to Python, to be run in order."""
    name, rest = arguments[0], arguments[1:]
    if name == "demo":
        return [[str(ROOT / "experiments" / "bone_xception.py"), "--sample"] + rest]
    if name == "test":
        everything = "--all" in rest
        rest = [flag for flag in rest if flag != "--all"]
        chosen = [] if everything else ["-m", "not slow"]
        # Two at a time, files whole: they share what is costly to set up. `-n 0` takes it back.
        return [["-m", "pytest", "-n", "2", "--dist", "loadfile"] + chosen + rest]
    if name == "lint":
        check, form = ["-m", "ruff", "check"], ["-m", "ruff", "format"]
        if rest == ["--fix"]:
            return [form, check + ["--fix"]]
        return [check + rest, form + ["--check"]]
    if name == "-m" and rest:
        return [["-m"] + rest]
    if name.endswith(".py"):
        for script in (Path(name), ROOT / name):
            if script.is_file():
                return [[str(script)] + rest]
        raise SetupError("no such script: {}".format(name), 2)
    raise SetupError("unknown command: {}\n\n{}".format(name, __doc__.strip()), 2)


def check_python(version, arguments):
    """Refuses a Python that TensorFlow has no wheel for, and names one that would do.

    Args:
        version: (major, minor, micro) of the Python that runs this file.
        arguments: what the user asked for, repeated in the remedy.

    Raises:
        SetupError: with exit code 2.
    """
    if tuple(version[:2]) in PYTHONS:
        return
    call = " ".join(["run.py"] + list(arguments))
    other = other_python()
    if other:
        remedy = "Start it with: {} {}".format(other, call)
    elif shutil.which("uv"):
        remedy = "Let uv bring one: uv run --no-project --python 3.12 {}".format(call)
    else:
        remedy = "None is on PATH: install Python 3.12, then: python3.12 {}".format(call)
    raise SetupError(
        "needs Python 3.11, 3.12 or 3.13; this is {}, {}\n{}".format(
            ".".join(str(part) for part in version), sys.executable, remedy
        ),
        2,
    )


def other_python():
    """Finds the name of a suitable Python on PATH, or None."""
    launchers = [["py", "-3.12"], ["py", "-3.11"], ["py", "-3.13"]] if WINDOWS else []
    names = [["python3.12"], ["python3.11"], ["python3.13"], ["python3"], ["python"]]
    for command in launchers + names:
        if not shutil.which(command[0]):
            continue
        # Some names on PATH are only shims, which fail when they are called.
        probe = command + ["-c", "import sys; print(*sys.version_info[:2])"]
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
            text = subprocess.check_output(probe, stderr=subprocess.DEVNULL, timeout=20)
            if tuple(int(part) for part in text.split()) in PYTHONS:
                return " ".join(command)
    return None


def environment(root, gpu=False, dev=False):
    """Returns the Python of a complete environment, which is made or mended where needed.

    Args:
        root: folder of the checkout.
        gpu: True for the CUDA TensorFlow.
        dev: True if the tools of tests and style are needed too.
    """
    if gpu and not sys.platform.startswith("linux"):
        raise SetupError(
            "--gpu needs Linux (on Windows: WSL2); CUDA packages exist for no other", 2
        )
    folder = root / (".venv-gpu" if gpu else ".venv")
    base = "requirements-gpu.txt" if gpu else "requirements.txt"
    wanted = {name: digest(root / name) for name in [base] + ([DEV_LOCK] if dev else [])}

    if missing(folder, wanted):
        with one_at_a_time(root / ".venv.lock"):
            # Another call may have done the work while this one waited.
            lacking = missing(folder, wanted)
            if base in lacking:
                set_up(root, folder, wanted)
            elif lacking:
                add(root, folder, {name: wanted[name] for name in lacking})
    return python_of(folder)


def digest(lock_file):
    """Returns the SHA-256 of a lock, the same whatever line ends git checked out."""
    try:
        content = lock_file.read_bytes()
    except OSError as error:
        raise SetupError("cannot read {}: {}".format(lock_file.name, error.strerror)) from None
    return hashlib.sha256(content.replace(b"\r\n", b"\n")).hexdigest()


def python_of(folder):
    return folder / ("Scripts/python.exe" if WINDOWS else "bin/python")


def read_mark(folder):
    """Returns what the environment holds as {lock: digest}; empty if it is not complete."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return mark["locks"] if mark["complete"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def write_mark(folder, locks, complete):
    """Says what the environment holds; the file is the old one or the new one, never half."""
    python = "{}.{}".format(*sys.version_info[:2])
    temporary = folder / (MARK + ".new")
    mark = {"complete": complete, "python": python, "locks": locks}
    temporary.write_text(json.dumps(mark, indent=2), encoding="utf-8")
    os.replace(str(temporary), str(folder / MARK))


def missing(folder, wanted):
    """Returns the names of the locks that the environment does not hold."""
    # The link is followed: an upgraded system may have taken the Python away.
    held = read_mark(folder) if python_of(folder).exists() else {}
    return [name for name in wanted if held.get(name) != wanted[name]]


@contextlib.contextmanager
def one_at_a_time(path):
    """Lets one call set up at a time; the system frees the lock of a killed one.

    Yields nothing. Programs started meanwhile inherit the lock (see `call`), so that the pip of
    a killed call is waited for too.
    """
    with open(str(path), "a+b") as handle:
        if not try_lock(handle):
            say("Another call is setting up; waiting for it ...")
            while not try_lock(handle):
                time.sleep(0.5)
        one_at_a_time.handle = handle.fileno()
        try:
            yield
        finally:
            one_at_a_time.handle = None


one_at_a_time.handle = None


def try_lock(handle):
    """Takes the lock if it is free; returns whether it did."""
    try:
        if WINDOWS:
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def set_up(root, folder, wanted):
    """Makes the environment from nothing, with uv if it is there, else with pip.

    Args:
        root: folder of the checkout.
        folder: the environment.
        wanted: {lock: digest}, to be installed in this order and written down at the end.
    """
    start = time.time()
    uv = shutil.which("uv")
    tool = "uv" if uv else "pip"
    say("Setting up {} with {}, once; up to two minutes ...".format(folder.name, tool))
    make_room(folder)
    (folder / LOG).write_bytes(b"")
    failed = uv and not build(root, folder, wanted, uv)
    if failed:
        # A private mirror is often known to pip alone.
        say("uv could not do it; trying pip ...")
        make_room(folder)
    if (failed or not uv) and not build(root, folder, wanted, None):
        raise failure(folder)
    write_mark(folder, wanted, complete=True)
    say("Set up in {:.0f} s.".format(time.time() - start))


def make_room(folder):
    """Leaves an empty folder that is marked as begun; keeps what someone else made."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        kept = folder.with_name("{}.kept-{}".format(folder.name, time.strftime("%Y%m%d-%H%M%S")))
        folder.rename(kept)
        say("{} was not made by run.py; it is now {}.".format(folder.name, kept.name))
    folder.mkdir(parents=True, exist_ok=True)
    write_mark(folder, {}, complete=False)
    # So git ignores the whole folder, whatever its name.
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    for child in folder.iterdir():
        if child.name in (MARK, ".gitignore", LOG):
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(str(child))
        else:
            child.unlink()


def build(root, folder, wanted, uv):
    """Makes the environment and installs the locks and the package; returns whether it could."""
    log = folder / LOG
    if uv:
        make = [uv, "venv", "--allow-existing", "--python", sys.executable, str(folder)]
    else:
        make = [sys.executable, "-I", "-m", "venv", str(folder)]
    if call(make, log) or any(install(folder, root / name, uv, log) for name in wanted):
        return False

    # The same as `pip install --no-deps --editable .`, without a network or a build. The path is
    # relative to the file that holds it, so a moved checkout still works.
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    text = subprocess.check_output([str(python_of(folder)), "-I", "-c", where])
    packages = Path(os.fsdecode(text).strip())
    (packages / "medkeras.pth").write_text(
        os.path.relpath(str(root), str(packages)) + "\n", encoding="utf-8"
    )
    return True


def add(root, folder, wanted):
    """Installs further locks {lock: digest} into a complete environment."""
    say("Adding {} to {} ...".format(", ".join(wanted), folder.name))
    held = read_mark(folder)
    write_mark(folder, {}, complete=False)
    log = folder / LOG
    log.write_bytes(b"")
    for name in wanted:
        # An environment made with uv holds no pip, and uv may be gone or offline since.
        tools = [tool for tool in (shutil.which("uv"), None) if tool or has_pip(folder)]
        if not any(install(folder, root / name, tool, log) == 0 for tool in tools):
            raise failure(folder)
    write_mark(folder, dict(held, **wanted), complete=True)


def has_pip(folder):
    probe = [str(python_of(folder)), "-I", "-c", "import pip"]
    return subprocess.call(probe, stderr=subprocess.DEVNULL) == 0


def install(folder, lock_file, uv, log):
    """Installs one lock; returns the exit code. Nothing is built, every file is checked."""
    python = str(python_of(folder))
    if uv:
        command = [uv, "pip", "install", "--python", python, "--no-build"]
    else:
        command = [python, "-I", "-m", "pip", "install", "--only-binary", ":all:"]
        command += ["--progress-bar", "off", "--disable-pip-version-check"]
    return call(command + ["--require-hashes", "-r", str(lock_file)], log)


def call(command, log):
    """Runs a step of the set-up into the log; returns its exit code.

    It says every 20 seconds that it is alive, and takes its program along when it is stopped.
    """
    variables = {k: v for k, v in os.environ.items() if k not in ("PIP_TARGET", "PIP_PREFIX")}
    variables["PIP_USER"] = "0"
    inherited = () if one_at_a_time.handle is None or WINDOWS else (one_at_a_time.handle,)
    with log.open("ab") as output:
        output.write("\n$ {}\n".format(" ".join(command)).encode())
        output.flush()
        program = subprocess.Popen(
            command, stdout=output, stderr=output, env=variables, pass_fds=inherited
        )
        start = time.time()
        try:
            while True:
                try:
                    return program.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    say("  ... {:.0f} s".format(time.time() - start))
        finally:
            if program.poll() is None:
                program.terminate()
                program.wait()


def failure(folder):
    """Builds the error of a failed set-up: the end of the log, and what can be done."""
    log = folder / LOG
    text = log.read_text(encoding="utf-8", errors="replace")
    tail = "\n".join("  | " + line for line in text.strip().splitlines()[-12:])
    return SetupError(
        "{} could not be set up.\n{}\n{}\nThe whole log: {}".format(
            folder.name, tail, remedy_for(text, shutil.disk_usage(str(folder)).free), log
        )
    )


def remedy_for(text, free):
    """Returns what the user can do.

    Args:
        text: the log of the set-up.
        free: bytes left on the disk.
    """
    text = text.lower()

    def said(*words):
        return any(word in text for word in words)

    if said("no space left", "disk quota") or free < 2e8:
        return "The disk is full: free about 3 GB (8 GB for --gpu), then call again."
    if said("ensurepip", "no module named venv"):
        return (
            "This Python comes without its venv module: install it (Debian, Ubuntu: the package "
            "python3-venv) or install uv, then call again."
        )
    if said("do not match the hashes", "hash mismatch"):
        return (
            "A package is not the one the lock names, so it was refused: clear the cache (pip "
            "cache purge, uv cache clean) or use another package mirror."
        )
    if said("connection", "dns", "resolve host", "name resolution", "timed out", "proxy", "ssl"):
        return (
            "The package index could not be reached: check the network, or name your proxy "
            "(HTTPS_PROXY) or mirror (pip config set global.index-url ...), then call again."
        )
    if said("no matching distribution", "no solution found", "no wheels", "not a supported wheel"):
        return (
            "The package index has no build of it for this system: TensorFlow runs on 64-bit Linux "
            "(glibc), macOS on Apple silicon and 64-bit Windows; an index of your own may lack it."
        )
    return "Mend what the log names, then call again."


def variables_for(python):
    """Returns the variables for what is run: as if the environment were activated."""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONHOME"}
    variables["VIRTUAL_ENV"] = str(python.parent.parent)
    variables["PATH"] = str(python.parent) + os.pathsep + variables.get("PATH", os.defpath)
    # TensorFlow's notes about the CPU and a missing GPU bury our own lines; with --gpu they tell
    # why a GPU is not used.
    level = "1" if python.parent.parent.name.endswith("gpu") else "2"
    variables.setdefault("TF_CPP_MIN_LOG_LEVEL", level)
    return variables


def replace_process(command, variables):
    """Becomes the program, so that signals and the exit code are its own."""
    if WINDOWS:
        return subprocess.call(command, env=variables)
    os.execve(command[0], command, variables)
    return 1


def lock(flags):
    """Makes the three locks from `pyproject.toml`: every system, every Python, every hash.

    Pins that still fit are kept; --upgrade moves all of them.
    """
    uv = shutil.which("uv")
    if not uv:
        raise SetupError("lock needs uv on PATH", 2)
    # The machine's own indexes and folders must not get into a lock that everyone uses.
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("UV_", "PIP_"))}
    common = [uv, "--no-config", "pip", "compile", "--universal", "--python-version", "3.11"]
    common += ["--fork-strategy", "fewest", "--generate-hashes", "--no-build", "--no-annotate"]
    common += ["--no-emit-index-url", "--custom-compile-command", "python3 run.py lock", "--quiet"]
    for output, source in (
        ("requirements.txt", ["pyproject.toml", "--extra", "cpu"]),
        # The constraints keep one version of each package in all locks.
        ("requirements-gpu.txt", ["pyproject.toml", "--extra", "gpu", "-c", "requirements.txt"]),
        (DEV_LOCK, ["--group", "pyproject.toml:dev", "-c", "requirements.txt"]),
    ):
        code = subprocess.call(
            common + source + flags + ["-o", output], env=variables, cwd=str(ROOT)
        )
        if code:
            return code
        say("wrote {}".format(output))
    return 0


def stop(number, frame):
    # Leaves through every `finally`, so that pip is stopped too.
    sys.exit(128 + number)


if __name__ == "__main__":
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, stop)
    sys.exit(main(sys.argv[1:]))
