"""House rules that a reader of one file cannot see broken: rooms, imports, bans, page lengths."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Data flows from top to bottom; a room imports only from rooms above it.
ORDER = (
    {"commands", "errors", "progress"},
    {"files"},
    {"readers", "phantoms"},
    {"preparation"},
    {"layers", "losses"},
    {"losses_heads"},
    {"models"},
    {"training"},
    {"evaluation"},
    {"serving"},
)
# The same inside of evaluation; what stands in none of them comes last.
INNER = ("numbers", "writing", "figures", "heat", "exploration", "")
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

# Starting Keras costs seconds, so what needs none of it must not pull it in.
HEAVY = {"tensorflow", "keras", "keras_tuner", "tf_explain", "tensorboard"}
MAY_START_KERAS = (
    "medkeras.preparation.pipeline",
    "medkeras.layers",
    "medkeras.losses",
    "medkeras.losses_heads",
    "medkeras.models",
    "medkeras.training",
    "medkeras.evaluation.evaluate",
    "medkeras.evaluation.explain",
    "medkeras.evaluation.heat.saliency",
    "medkeras.evaluation.explain_exams",
    "medkeras.evaluation.heads_scores",
    "medkeras.serving",
)
# Everything else runs on any Keras backend.
MAY_NAME_TENSORFLOW = (
    "medkeras.preparation.pipeline",
    "medkeras.training",
    "medkeras.evaluation.evaluate",
    "medkeras.evaluation.explain",
    "medkeras.evaluation.heat.saliency",
    "medkeras.evaluation.explain_exams",
    "medkeras.evaluation.heat.explain_maps",
    "medkeras.serving",
)

# Import name -> distribution, where the two differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "_pytest": "pytest",
}


def paths(*folders):
    found = []
    for folder in folders:
        found += sorted((ROOT / folder).rglob("*.py"))
    return [path for path in found if "__pycache__" not in path.parts]


LIBRARY = paths("medkeras")
PAGES = sorted((ROOT / "experiments").glob("[!_]*.py"))
PRODUCT = [*LIBRARY, *paths("experiments", "benchmarks"), ROOT / "run.py"]
TESTS = paths("tests")


def each(files):
    return pytest.mark.parametrize(
        "path", files, ids=lambda path: path.relative_to(ROOT).as_posix()
    )


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in LIBRARY}


def below(name, parents):
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def statements(tree):
    """Yields every node that runs when the module is imported: none inside a function."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def imports(nodes):
    """Returns the full names that are imported, `from a import b` as both a and a.b."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute: they say the room they come from"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def named(path):
    """Returns all that a file imports, inside functions too."""
    return imports(ast.walk(parse(path)))


@cache
def started(name):
    """Returns what a module of ours imports when it is imported."""
    return imports(statements(parse(MODULES[name])))


def room(name):
    return name.split(".")[1] if name.count(".") else ""


@each(LIBRARY)
def test_rooms_import_one_way(path):
    here = room(module_name(path))
    for name in named(path):
        there = room(name) if name.startswith("medkeras.") else ""
        if not there or there == "__version__":
            continue
        assert there in RANK, f"{name}: no such room; ORDER lists them"
        assert here in RANK, f"{module_name(path)} stands outside the rooms and imports {name}"
        assert there == here or RANK[there] < RANK[here], f"{here} may not import {name}"


@each([path for path in LIBRARY if module_name(path).startswith("medkeras.evaluation.")])
def test_rooms_of_evaluation_import_one_way(path):
    def inner(name):
        parts = name.split(".")
        return parts[2] if len(parts) > 2 and parts[2] in INNER else ""

    here = INNER.index(inner(module_name(path)))
    for name in named(path):
        if name.startswith("medkeras.evaluation."):
            assert INNER.index(inner(name)) <= here, f"{module_name(path)} may not import {name}"


@each(LIBRARY)
def test_the_library_knows_no_experiment(path):
    others = {name.split(".")[0] for name in named(path)}
    assert not others & {"experiments", "tests", "benchmarks", "run"}


def reached(name, seen):
    """Returns what importing a module of ours imports, directly or through others of ours."""
    if name in seen:
        return set()
    seen.add(name)
    direct = started(name)
    parents = {name.rpartition(".")[0]} & set(MODULES)
    for other in (direct & set(MODULES)) | parents:
        direct = direct | reached(other, seen)
    return direct


@pytest.mark.parametrize("name", [name for name in MODULES if not below(name, MAY_START_KERAS)])
def test_starts_without_keras(name):
    heavy = {other for other in reached(name, set()) if other.split(".")[0] in HEAVY}
    assert not heavy, f"{name} starts {sorted(heavy)}: import inside the function that needs it"


@each(LIBRARY)
def test_tensorflow_is_named_in_few_places(path):
    if not below(module_name(path), MAY_NAME_TENSORFLOW):
        names = {name.split(".")[0] for name in named(path)}
        assert "tensorflow" not in names, "use keras.ops, which runs on every backend"


@cache
def declared(*, tools):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    texts = list(project["project"]["dependencies"]) + ["tensorflow"]
    if tools:
        texts += project["dependency-groups"]["dev"]
    return {re.match(r"[A-Za-z0-9._-]+", text)[0].lower().replace("_", "-") for text in texts}


@each([*PRODUCT, *TESTS])
def test_imports_are_declared(path):
    allowed = set(declared(tools=path in TESTS))
    if path in TESTS:
        # pytest brings packaging; nothing but a test may lean on that.
        allowed.add("packaging")
    if path.parent == ROOT / "benchmarks":
        # The other side of a comparison, never a dependency.
        allowed.add("torch")
    ours = {"medkeras", "experiments", "benchmarks", "tests", "run"}
    ours |= {sibling.stem for sibling in path.parent.iterdir()}
    for name in named(path):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in ours:
            continue
        distribution = DISTRIBUTIONS.get(top, top.lower().replace("_", "-"))
        assert distribution in allowed, f"{top} is not a dependency that pyproject.toml names"


# What would run a stranger's code, or hide a fault.

BANNED_MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
BANNED_NAMES = {"eval", "exec", "load_model", "enable_unsafe_deserialization", "Lambda"}
BANNED_CALLS = {"os.system", "os.popen", "torch.load", "yaml.load", "pandas.read_pickle"}
BANNED_CALLS |= {"pd.read_pickle", "warnings.filterwarnings('ignore')"}
BANNED_CALLS |= {"warnings.simplefilter('ignore')"}
BANNED_ARGUMENTS = {
    "allow_pickle": True,
    "safe_mode": False,
    "shell": True,
    "force": True,
    "unsafe_allow_html": True,
    "verify": False,
}


def faults(tree):
    """Yields (line, what) for everything that is banned."""
    for name in imports(ast.walk(tree)):
        if name.split(".")[0] in BANNED_MODULES:
            yield 1, f"import {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield node.lineno, "bare except"
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            # `model.eval` and the like are another's; the builtins have no dot.
            if name in BANNED_NAMES and not (name in ("eval", "exec") and hasattr(node, "attr")):
                yield node.lineno, name
        elif isinstance(node, ast.Call):
            yield from call_faults(node)


def call_faults(call):
    name = ast.unparse(call.func)
    first = f"{name}({ast.unparse(call.args[0])})" if call.args else name
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    for banned in {name, first} & BANNED_CALLS:
        yield call.lineno, banned
    for argument, value in BANNED_ARGUMENTS.items():
        # Written as a constant: what is computed cannot be judged here.
        if keywords.get(argument) == str(value):
            yield call.lineno, f"{argument}={value}"
    if name.endswith("extractall") and keywords.get("filter") != "'data'":
        yield call.lineno, "extractall without filter='data'"
    if name in ("requests.get", "requests.post", "urlopen", "urllib.request.urlopen"):
        if "timeout" not in keywords:
            yield call.lineno, f"{name} without timeout"


@each(PRODUCT)
def test_nothing_banned(path):
    found = sorted(set(faults(parse(path))))
    assert not found, f"{path.name}: {found}"


@each(TESTS)
def test_tests_hide_no_fault(path):
    hidden = [fault for fault in faults(parse(path)) if re.match("bare|warnings", fault[1])]
    assert not hidden, f"{path.name}: {hidden}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "keras.models.load_model(path)",
        "load_model(path)",
        "keras.saving.deserialize_keras_object(x, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "archive.extractall(path)",
        "keras.layers.Lambda(f)",
        "warnings.filterwarnings('ignore')",
        "try:\n    f()\nexcept:\n    pass",
        "requests.get(url)",
    ],
)
def test_the_bans_bite(code):
    assert list(faults(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "np.load(path, allow_pickle=False)",
        "archive.extractall(path, filter='data')",
        "subprocess.run([program], shell=False)",
        "requests.get(url, timeout=10)",
        "try:\n    f()\nexcept OSError:\n    pass",
        "lambda x: x",
    ],
)
def test_the_bans_bite_nothing_else(code):
    assert not list(faults(ast.parse(code)))


# What a reader may expect


@each(PAGES)
def test_an_experiment_is_one_page(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60, "one page: move what is not this question's into the library"
    text = ast.get_docstring(parse(path)) or ""
    assert f"python experiments/{path.name}" in text, "the docstring is --help: it says the command"


@each(LIBRARY)
def test_what_is_public_has_a_docstring(path):
    tree = parse(path)
    if tree.body:
        assert ast.get_docstring(tree), "the module says what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


@each([*PRODUCT, *TESTS])
def test_text_is_plain(path):
    text = path.read_text(encoding="utf-8")
    assert "\r" not in text and "\t" not in text
    assert "coding: " not in text.partition("\n")[0]


def test_container_brings_what_it_names_and_no_more():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not any(line.startswith("ADD") or re.match(r"COPY \. ", line) for line in lines)
    assert "--require-hashes" in text
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert user not in ("root", "0")
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    for line in lines:
        if line.startswith("COPY"):
            for source in [part for part in line.split()[1:-1] if not part.startswith("--")]:
                assert (ROOT / source).exists(), source
