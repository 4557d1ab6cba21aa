import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from medkeras.errors import ResourceError
from medkeras.files import child, frames
from medkeras.files.foreign import MAX_BYTES, Unreadable

# What a decoder could do to its process, each as a task of its own.
TASKS = """
import os, sys, time
import numpy as np
from medkeras.files.foreign import Unreadable

def task(data, how="echo", **options):
    if how == "echo":
        return {"size": len(data), "pid": os.getpid(), **options}, [np.frombuffer(data, np.uint8)]
    if how == "shapes":
        return {}, [np.zeros(s, t) for s, t in options["arrays"]]
    if how == "sleep":
        time.sleep(1000)
    if how == "spin":
        while True:
            pass
    if how == "abort":
        os.abort()
    if how == "segment":
        os.kill(os.getpid(), 11)
    if how == "exit":
        os._exit(3)
    if how == "print":
        print("x" * 100000)
        os.write(1, b"y" * 100000)
        os.write(2, b"z" * 1000000)
        return {}, []
    if how == "read":
        return {"read": sys.stdin.read()}, []
    if how == "allocate":
        return {"got": len(bytearray(options["size"]))}, []
    if how == "write":
        with open(options["path"], "w") as file:
            file.write("marker")
    if how == "refuse":
        raise Unreadable("is sour", "add\\x1b[31msugar")
    if how == "raise":
        raise {"RuntimeError": RuntimeError, "StopIteration": StopIteration,
               "RecursionError": RecursionError}[options["kind"]]("line one\\nline two" + "!" * 999)
    if how == "facts":
        return {"pid": os.getpid(), "names": sorted(sys.modules), "environment": dict(os.environ),
                "small": np.float32(0.5)}, []
    if how == "once":
        # Dies of the damage that an earlier file left; `used` stands for the heap.
        global used
        used, before = True, globals().get("used")
        if before:
            os.abort()
        return {}, []
    if how == "answer":
        frame = sys._getframe()
        while "answers" not in frame.f_locals:
            frame = frame.f_back
        os.write(frame.f_locals["answers"].fileno(), bytes.fromhex(options["bytes"]))
        time.sleep(1000)
"""


@pytest.fixture(scope="module", autouse=True)
def misbehaving(tmp_path_factory):
    """Makes the task importable here, and so in the children that start here."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "misbehaving.py").write_text(TASKS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture
def pools():
    """Makes pools whose children know the task "test" beside the real ones."""
    made = []

    def make(**options):
        made.append(child.Pool({**child.TASKS, "test": "misbehaving"}, **options))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.fixture(scope="module")
def ask():
    """Function that has a child of a common pool misbehave: each test finds it in order."""
    with child.Pool({"test": "misbehaving"}, seconds=10, children=2) as pool:
        yield lambda how, data=b"", **options: pool.run("test", data, how=how, **options)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"


def gone(pid):
    for _ in range(500):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


def test_bytes_go_in_and_facts_and_arrays_come_out(ask):
    data = bytes(range(256)) * 5000
    facts, (array,) = ask("echo", data, note="ä")
    assert facts["size"] == len(data) and facts["note"] == "ä"
    assert array.tobytes() == data
    facts, (array,) = ask("echo", b"")
    assert facts["size"] == 0 and array.shape == (0,)


@pytest.mark.parametrize("dtype", frames.DTYPES)
def test_arrays_keep_type_and_shape(ask, dtype):
    _, arrays = ask("shapes", arrays=[[[2, 3, 4], dtype], [[], dtype], [[0, 5], dtype]])
    assert [(array.shape, array.dtype) for array in arrays] == [
        (shape, np.dtype(dtype)) for shape in ((2, 3, 4), (), (0, 5))
    ]


def test_one_child_serves_file_after_file(ask):
    assert len({ask("echo")[0]["pid"] for _ in range(5)}) == 1


def test_threads_have_children_of_their_own_but_no_more_than_allowed(ask):
    def one(number):
        data = bytes([number]) * (1000 * number)
        facts, (array,) = ask("echo", data)
        assert array.tobytes() == data
        return facts["pid"]

    with ThreadPoolExecutor(6) as pool:
        pids = set(pool.map(one, range(120)))
    assert 1 <= len(pids) <= 2


@pytest.mark.parametrize("how", ["sleep", "spin"])
def test_a_hang_costs_one_file_and_its_time(pools, how):
    pool = pools(seconds=1, children=1)
    before = pool.run("test", b"")[0]["pid"]
    began = time.monotonic()
    with pytest.raises(Unreadable, match="took longer than 1 s") as caught:
        pool.run("test", b"", how=how)
    assert 0.9 < time.monotonic() - began < 5
    assert caught.value.remedy
    assert gone(before)
    assert pool.run("test", b"abc")[0]["size"] == 3


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("abort", r"crashed the decoder \(signal 6, SIGABRT\)"),
        ("segment", r"crashed the decoder \(signal 11, SIGSEGV\)"),
        ("exit", r"crashed the decoder \(exit code 3\)"),
    ],
)
def test_a_native_death_costs_one_file(ask, how, reason):
    for _ in range(2):
        with pytest.raises(Unreadable, match=reason) as caught:
            ask(how)
        assert caught.value.remedy
        assert ask("echo", b"abc")[0]["size"] == 3


def test_no_file_is_blamed_for_damage_that_another_left(ask):
    for _ in range(3):
        ask("once")


def test_memory_is_limited_and_the_next_file_is_decoded(pools):
    pool = pools(memory=2**30, children=1)
    assert pool.run("test", b"", how="allocate", size=2**29)[0]["got"] == 2**29
    with pytest.raises(Unreadable, match="needs more than 1 GiB"):
        pool.run("test", b"", how="allocate", size=2**30)
    assert pool.run("test", b"abc")[0]["size"] == 3


def test_a_file_larger_than_the_memory_is_refused(pools):
    pool = pools(memory=2**28, children=1)
    with pytest.raises(Unreadable, match="needs more than 0.25 GiB"):
        pool.run("test", bytes(2**28))
    assert pool.run("test", b"abc")[0]["size"] == 3


def test_a_child_writes_no_files(ask, tmp_path):
    with pytest.raises(Unreadable, match="OSError.*too large"):
        ask("write", path=str(tmp_path / "made"))
    assert (tmp_path / "made").read_bytes() == b""


def test_what_a_library_prints_breaks_nothing(ask):
    for _ in range(3):
        assert ask("print") == ({}, [])
    assert ask("read")[0]["read"] == ""
    assert ask("echo", b"abc")[0]["size"] == 3


def test_a_refusal_keeps_its_words_without_terminal_codes(ask):
    with pytest.raises(Unreadable) as caught:
        ask("refuse")
    assert caught.value.reason == "is sour"
    assert caught.value.remedy == "add [31msugar"


@pytest.mark.parametrize("kind", ["RuntimeError", "StopIteration", "RecursionError"])
def test_any_exception_is_a_refusal_in_one_short_line(ask, kind):
    with pytest.raises(Unreadable, match=f"^is damaged: {kind}: line one line two!+$") as caught:
        ask("raise", kind=kind)
    assert len(caught.value.reason) < 300


def test_a_child_is_lean_and_knows_no_secrets(pools, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hunter2")
    facts, _ = pools().run("test", b"", how="facts")
    assert not {"tensorflow", "keras", "pydicom", "cv2", "pandas"} & set(facts["names"])
    assert "hunter2" not in facts["environment"].values()
    assert facts["small"] == 0.5


def message(header, buffer=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text).to_bytes(4, "big") + text + buffer).hex()


@pytest.mark.parametrize(
    "answer",
    [
        (2**32 - 1).to_bytes(4, "big").hex(),
        message(b"[" * 100_000),
        message(b"\xff\xfe"),
        message([]),
        message({}),
        message({"facts": [], "arrays": []}),
        message({"facts": {}, "arrays": 7}),
        message({"facts": {}, "arrays": [["uint8"]]}),
        message({"facts": {}, "arrays": [["object", [2]]]}),
        message({"facts": {}, "arrays": [["O", [2]]]}),
        message({"facts": {}, "arrays": [[{}, [2]]]}),
        message({"facts": {}, "arrays": [["uint8", [-1]]]}),
        message({"facts": {}, "arrays": [["uint8", [True]]]}),
        message({"facts": {}, "arrays": [["uint8", [2.0]]]}),
        message({"facts": {}, "arrays": [["uint8", "22"]]}),
        message({"facts": {}, "arrays": [["uint8", [1] * 40]]}),
        message({"facts": {}, "arrays": [["uint8", [MAX_BYTES + 1]]]}),
        message({"facts": {}, "arrays": [["uint8", [10**30, 0]], ["float64", [10**15, 10**15]]]}),
        message({"facts": {}, "arrays": [["uint8", [MAX_BYTES]], ["uint8", [1]]]}, b""),
        message({"refused": ["only one"]}),
        message({"refused": "no list"}),
    ],
)
def test_a_child_that_was_taken_over_is_not_believed(pools, answer):
    pool = pools(seconds=5, children=1)
    with pytest.raises(Unreadable, match="confuses the decoder"):
        pool.run("test", b"", how="answer", bytes=answer)
    assert pool.run("test", b"abc")[0]["size"] == 3


def test_only_listed_tasks_run():
    with pytest.raises(ValueError, match="no task"):
        child.run("test", b"")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    with child.Pool({"test": "needy"}) as pool, pytest.raises(Unreadable) as caught:
        pool.run("test", b"")
    assert "no_such_package" in caught.value.reason and "install" in caught.value.remedy


@pytest.mark.parametrize("program", [None, "/no/such/python", "/bin/false"])
def test_a_child_that_does_not_start_is_no_fault_of_the_file(monkeypatch, program):
    if program is None:
        monkeypatch.setattr(child, "START", "raise RuntimeError('no numpy here')")
    else:
        monkeypatch.setattr(sys, "executable", program)
    with child.Pool() as pool, pytest.raises(ResourceError, match="does not start: ") as caught:
        pool.run("picture", b"")
    assert program or "no numpy here" in str(caught.value)


def test_a_stranger_in_the_working_folder_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('imported')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with child.Pool() as pool, pytest.raises(Unreadable, match="empty"):
        pool.run("picture", b"")


def test_closing_ends_the_children_and_the_next_call_starts_new_ones(pools):
    pool = pools()
    first = pool.run("test", b"")[0]["pid"]
    pool.close()
    assert gone(first)
    second = pool.run("test", b"")[0]["pid"]
    assert alive(second) and second != first


def test_closing_lets_a_busy_child_finish(pools):
    pool = pools(children=1)
    pool.run("test", b"")
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(pool.run, "test", bytes(50_000_000))
        time.sleep(0.01)
        pool.close()
        facts, _ = answer.result()
    assert facts["size"] == 50_000_000
    pool.close()
    assert gone(facts["pid"])


def test_an_interrupted_answer_is_not_read_as_the_next(pools, monkeypatch):
    pool = pools(children=1)
    first = pool.run("test", b"")[0]["pid"]

    def interrupt(file):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(frames, "receive", interrupt)
        pool.run("test", b"secret")
    assert gone(first)
    assert pool.run("test", b"abc")[1][0].tobytes() == b"abc"


def script(tmp_path, code):
    path = tmp_path / "script.py"
    path.write_text(code)
    search = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search},
        start_new_session=True,
    )


HANGING = """
import sys
from medkeras.files import child
pool = child._pool = child.Pool({"test": "misbehaving"}, seconds=3, children=2)
idle = pool.run("test", b"")[0]["pid"]
print(idle, flush=True)
"""


def test_a_script_ends_at_once_and_leaves_no_child(tmp_path):
    code = (
        "import threading\n"
        "from medkeras.files import child\n"
        "child._pool = child.Pool({'test': 'misbehaving'})\n"
        "pids = []\n"
        "def one(): pids.append(child.run('test', b'')[0]['pid'])\n"
        "threads = [threading.Thread(target=one) for _ in range(3)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(*set(pids))\n"
    )
    process = script(tmp_path, code)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out and not any(alive(int(pid)) for pid in out.split())


def test_a_run_that_saves_on_ctrl_c_keeps_its_children(tmp_path):
    code = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\n" + HANGING
    code += "sys.stdin.readline()\nprint(pool.run('test', b'')[0]['pid'])\n"
    process = script(tmp_path, code)
    pid = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate("go\n", timeout=60)
    assert (out, err) == (pid, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("then", ["time.sleep(60)", "pool.run('test', b'', how='sleep')"])
def test_a_stopped_script_leaves_no_child(tmp_path, number, then):
    process = script(tmp_path, HANGING + "import time\n" + then)
    pid = int(process.stdout.readline())
    time.sleep(0.2)
    # As a terminal does on Ctrl-C: to the whole group.
    os.killpg(process.pid, number)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 5
    assert err.count("Traceback") == (number == signal.SIGINT)
    assert "serve" not in err
    if "sleep(60)" in then or number == signal.SIGINT:
        assert gone(pid)
    else:
        # Nobody is left to end what hangs: it ends itself soon after its time.
        os.kill(pid, signal.SIGKILL)


def test_a_hang_ends_itself_when_the_parent_is_gone(tmp_path):
    code = HANGING.replace("seconds=3", "seconds=0.5")
    process = script(tmp_path, code + "pool.run('test', b'', how='sleep')")
    pid = int(process.stdout.readline())
    time.sleep(0.2)
    process.kill()
    process.communicate()
    began = time.monotonic()
    while alive(pid):
        assert time.monotonic() - began < 10
        time.sleep(0.05)


def test_a_forked_process_has_children_of_its_own(tmp_path):
    code = (
        "import os, threading, time\n"
        "from medkeras.files import child\n"
        "child._pool = child.Pool({'test': 'misbehaving'})\n"
        "def pid(): return child.run('test', b'')[0]['pid']\n"
        "mine = pid()\n"
        # Python 3.12 warns of a fork beside a thread, and a cancelled timer takes a moment.
        "while threading.active_count() > 1: time.sleep(0.01)\n"
        "if os.fork() == 0:\n"
        "    assert pid() != mine\n"
        "else:\n"
        "    assert os.wait()[1] == 0\n"
        "    assert pid() == mine\n"
    )
    process = script(tmp_path, code)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
