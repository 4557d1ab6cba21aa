"""Set-up: run.py without a network, and the locks against pyproject.toml."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.txt", "requirements-gpu.txt", "requirements-dev.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def run():
    spec = importlib.util.spec_from_file_location("medkeras_run", ROOT / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path, run, monkeypatch):
    """A folder with locks, and a run.py whose installs only take notes.

    Each call is noted in `checkout.calls`; the one whose number is in `checkout.failing` fails.
    """

    class Checkout:
        root = tmp_path
        calls = []
        failing = ()

        def environment(self, **options):
            return run.environment(tmp_path, **options)

        def mark(self, folder=".venv"):
            return json.loads((tmp_path / folder / run.MARK).read_text())

    checkout = Checkout()
    checkout.calls = []
    for name in LOCKS:
        (tmp_path / name).write_text(f"{name}==1\n")

    def call(command, log):
        checkout.calls.append([str(part) for part in command])
        if len(checkout.calls) in checkout.failing:
            log.write_text("Failed to establish a new connection")
            return 1
        if "venv" in checkout.calls[-1]:
            python = run.python_of(Path(command[-1]))
            python.parent.mkdir(parents=True, exist_ok=True)
            python.touch()
        return 0

    def where(command, **_):
        packages = Path(command[0]).parents[1] / "lib" / "site-packages"
        packages.mkdir(parents=True, exist_ok=True)
        return str(packages).encode()

    monkeypatch.setattr(run, "call", call)
    monkeypatch.setattr(run.subprocess, "check_output", where)
    monkeypatch.setattr(run, "has_pip", lambda folder: True)
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    return checkout


# Which Python


def test_old_python_can_read_run_py():
    ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_suitable_python_goes_on(run, version):
    run.check_python(version, ["demo"])


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 13), (3, 14, 0)])
def test_other_python_is_told_which_to_use(run, monkeypatch, version):
    monkeypatch.setattr(run, "other_python", lambda: "python3.12")
    with pytest.raises(run.SetupError, match=r"needs Python 3\.11, 3\.12 or 3\.13") as caught:
        run.check_python(version, ["demo", "--epochs", "2"])
    assert caught.value.exit_code == 2
    assert "python3.12 run.py demo --epochs 2" in str(caught.value)


def test_no_suitable_python_at_all(run, monkeypatch):
    monkeypatch.setattr(run, "other_python", lambda: None)
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    with pytest.raises(run.SetupError, match="install Python 3.12"):
        run.check_python((3, 9, 0), ["demo"])


def test_shim_that_leads_nowhere_is_passed_over(run, monkeypatch):
    def probe(command, **_):
        if command[0] == "python3.12":
            raise subprocess.CalledProcessError(127, command)
        return b"3 11\n"

    monkeypatch.setattr(run.shutil, "which", lambda name: name)
    monkeypatch.setattr(run.subprocess, "check_output", probe)
    monkeypatch.setattr(run, "WINDOWS", False)
    assert run.other_python() == "python3.11"


def test_run_py_and_pyproject_name_the_same_pythons(run):
    low, high = re.fullmatch(
        r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]
    ).groups()
    assert run.PYTHONS == tuple((3, minor) for minor in range(int(low), int(high)))


# Commands


def test_usage_without_arguments(run, capsys):
    assert run.main([]) == 0
    assert "run.py demo" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["missing.py"], ["-m"], ["--gpu"]])
def test_wrong_usage_is_exit_2_before_any_set_up(run, monkeypatch, arguments, capsys):
    monkeypatch.setattr(run, "environment", lambda *_, **__: pytest.fail("set up"))
    assert run.main(arguments) == 2
    assert "run.py" in capsys.readouterr().err


def test_commands(run):
    demo = [str(ROOT / "experiments" / "bone_xception.py"), "--sample", "--seed", "1"]
    assert run.python_commands(["demo", "--seed", "1"]) == [demo]
    pytest_ = ["-m", "pytest", "-n", "2", "--dist", "loadfile"]
    assert run.python_commands(["test", "-x"]) == [[*pytest_, "-m", "not slow", "-x"]]
    assert run.python_commands(["test", "--all", "-x"]) == [[*pytest_, "-x"]]
    assert run.python_commands(["-m", "pip", "list"]) == [["-m", "pip", "list"]]


def test_a_script_is_found_from_anywhere(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run.python_commands(["run.py"]) == [[str(ROOT / "run.py")]]
    (tmp_path / "run.py").touch()
    assert run.python_commands(["run.py"]) == [["run.py"]]


def test_programs_see_an_activated_environment(run, monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    variables = run.variables_for(tmp_path / ".venv" / "bin" / "python")
    assert variables["VIRTUAL_ENV"] == str(tmp_path / ".venv")
    assert variables["PATH"].startswith(str(tmp_path / ".venv" / "bin"))
    assert variables["TF_CPP_MIN_LOG_LEVEL"] == "2"


@pytest.mark.skipif(sys.platform == "win32", reason="the process is replaced on POSIX only")
def test_the_exit_code_is_that_of_the_program(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(75)")
    starter = (
        f"import os, run; run.replace_process([{sys.executable!r}, {str(script)!r}], os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", starter], cwd=ROOT, check=False)
    assert done.returncode == 75


# Making and mending


def test_a_complete_environment_is_used_as_it_is(checkout):
    python = checkout.environment()
    made = len(checkout.calls)
    assert checkout.environment() == python
    assert len(checkout.calls) == made == 2
    assert checkout.mark()["complete"] is True


def test_every_file_is_checked_and_none_is_built(checkout):
    checkout.environment()
    install = " ".join(checkout.calls[1])
    assert "--require-hashes" in install
    assert "--only-binary :all:" in install


def test_the_package_is_found_from_a_moved_checkout(checkout):
    checkout.environment()
    (link,) = checkout.root.glob(".venv/**/medkeras.pth")
    assert not Path(link.read_text().strip()).is_absolute()
    assert (link.parent / link.read_text().strip()).resolve() == checkout.root.resolve()


def test_a_changed_lock_makes_it_anew(checkout):
    checkout.environment()
    leftover = checkout.root / ".venv" / "leftover"
    leftover.touch()
    (checkout.root / "requirements.txt").write_text("other==2\n")
    checkout.environment()
    assert len(checkout.calls) == 4
    assert not leftover.exists()


def test_line_ends_of_a_lock_do_not_matter(checkout):
    checkout.environment()
    (checkout.root / "requirements.txt").write_bytes(b"requirements.txt==1\r\n")
    checkout.environment()
    assert len(checkout.calls) == 2


def test_tools_are_added_to_what_is_there(checkout):
    checkout.environment()
    checkout.environment(dev=True)
    assert len(checkout.calls) == 3
    assert checkout.calls[-1][-1].endswith("requirements-dev.txt")
    assert set(checkout.mark()["locks"]) == {"requirements.txt", "requirements-dev.txt"}
    checkout.environment()
    assert len(checkout.calls) == 3


@pytest.mark.parametrize("step", [1, 2])
def test_an_interrupted_set_up_is_made_anew(checkout, run, monkeypatch, step):
    plain = run.call

    def interrupted(command, log):
        if len(checkout.calls) + 1 == step:
            raise KeyboardInterrupt
        return plain(command, log)

    monkeypatch.setattr(run, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkout.environment()
    assert checkout.mark()["complete"] is False
    monkeypatch.setattr(run, "call", plain)
    checkout.calls.clear()
    checkout.environment()
    assert len(checkout.calls) == 2
    assert checkout.mark()["complete"] is True


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"complete": true}', '{"complete": false}'])
def test_a_damaged_mark_is_not_trusted(checkout, run, mark):
    checkout.environment()
    (checkout.root / ".venv" / run.MARK).write_text(mark)
    checkout.environment()
    assert len(checkout.calls) == 4


def test_a_vanished_python_is_noticed(checkout):
    checkout.environment().unlink()
    assert checkout.environment().exists()
    assert len(checkout.calls) == 4


def test_a_foreign_environment_is_kept(checkout, capsys):
    mine = checkout.root / ".venv" / "mine"
    mine.parent.mkdir()
    mine.touch()
    checkout.environment()
    assert len(list(checkout.root.glob(".venv.kept-*/mine"))) == 1
    assert "was not made by run.py" in capsys.readouterr().err


def test_a_failure_says_what_to_do_and_is_mended_by_the_next_call(checkout, run):
    checkout.failing = (2,)
    with pytest.raises(run.SetupError, match="check the network") as caught:
        checkout.environment()
    assert caught.value.exit_code == 4
    assert checkout.environment().exists()


def test_pip_is_tried_where_uv_fails(checkout, run, monkeypatch):
    monkeypatch.setattr(run.shutil, "which", lambda name: "uv" if name == "uv" else None)
    checkout.failing = (2,)
    checkout.environment()
    assert [call[0] == "uv" for call in checkout.calls] == [True, True, False, False]


@pytest.mark.parametrize(
    ("log", "free", "said"),
    [
        ("OSError: [Errno 28] No space left on device", 1e10, "disk is full"),
        ("anything", 1e6, "disk is full"),
        ("ensurepip is not available", 1e10, "python3-venv"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", 1e10, "refused"),
        ("Temporary failure in name resolution\nNo matching distribution", 1e10, "network"),
        ("ERROR: No matching distribution found for tensorflow==2.21.0", 1e10, "TensorFlow runs"),
        ("?", 1e10, "Mend what the log names"),
    ],
)
def test_remedies(run, log, free, said):
    assert said in run.remedy_for(log, free)


@pytest.mark.skipif(sys.platform == "win32", reason="uses flock")
def test_one_call_sets_up_at_a_time_and_a_killed_one_frees_it(run, tmp_path):
    path = tmp_path / "lock"
    holder = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a+b'); fcntl.flock(f, fcntl.LOCK_EX);"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with path.open("a+b") as handle:
            assert not run.try_lock(handle)
            other.kill()
            other.wait()
            assert run.try_lock(handle)


# Locks


def pins(name):
    """Returns {package: [(version, marker, number of hashes), ...]} of a lock."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.match(r"([a-z0-9-]+)==(\S+)(?:\s+;\s*(.*?))?\s+--hash", line)
        assert match, f"{name}: not a pinned package: {line[:80]}"
        hashes = len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line))
        found.setdefault(match[1], []).append((match[2], match[3] or "", hashes))
    return found


def names(requirements):
    found = (re.match(r"[A-Za-z0-9._-]+", text)[0].lower() for text in requirements)
    return {re.sub("[._]", "-", name) for name in found}


def test_every_direct_dependency_is_locked_with_hashes():
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    for lock, direct in (
        ("requirements.txt", project["dependencies"] + extras["cpu"]),
        ("requirements-gpu.txt", project["dependencies"] + extras["gpu"]),
        ("requirements-dev.txt", PROJECT["dependency-groups"]["dev"]),
    ):
        locked = pins(lock)
        assert names(direct) <= set(locked), lock
        assert all(hashes for rows in locked.values() for *_, hashes in rows), lock


@pytest.mark.parametrize("lock", LOCKS)
def test_pins_lie_in_the_declared_ranges(lock):
    from packaging.requirements import Requirement

    project = PROJECT["project"]
    locked = pins(lock)
    everything = [project["dependencies"], *project["optional-dependencies"].values()]
    for text in sum(everything, PROJECT["dependency-groups"]["dev"]):
        requirement = Requirement(text)
        for version, *_ in locked.get(requirement.name, []):
            assert version in requirement.specifier, text


def test_locks_agree_with_each_other():
    base = pins("requirements.txt")
    for name in LOCKS[1:]:
        for package, rows in pins(name).items():
            if package in base and package != "tensorflow":
                assert rows == base[package], package


def test_tensorflow_comes_once_on_every_system():
    from packaging.markers import Marker

    locked = pins("requirements.txt")
    systems = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "AMD64")]
    for system, machine in systems:
        place = {"sys_platform": system, "platform_machine": machine}
        here = [
            package
            for package in ("tensorflow", "tensorflow-cpu")
            for _, marker, _ in locked.get(package, [])
            if Marker(marker).evaluate(place)
        ]
        small = (system, machine) == ("linux", "x86_64")
        assert here == (["tensorflow-cpu"] if small else ["tensorflow"]), place
    assert "tensorflow-cpu" not in pins("requirements-gpu.txt")


@pytest.mark.parametrize("lock", LOCKS)
def test_opencv_comes_without_windows(lock):
    others = {"opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"}
    assert not others & set(pins(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_place(lock):
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted|file:| @ |/", text)


def test_every_dependency_has_its_reason():
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    project = PROJECT["project"]
    direct = sum(project["optional-dependencies"].values(), project["dependencies"])
    for name in names(direct + PROJECT["dependency-groups"]["dev"]):
        assert f"| {name} |" in guide, name
