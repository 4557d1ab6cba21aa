"""How a model was built, as JSON, and the way back from it.

A run stores `model.recipe` in `predictor.json`; `rebuild` calls the same function again, and
the weights come from `model.keras`. No class, function or module is ever looked up by a name
out of a file: only what stands in the table below can be called.
"""

import functools
import importlib
import inspect

from medkeras.errors import UsageError

# Modules of medkeras.models whose decorated functions `rebuild` may call. A new module of
# models adds its name here.
MODULES = ("combined", "custom_cnn", "fusion", "hog", "locator", "mrnet", "transfer")

_HOUSE = "medkeras.models."
_functions = {}


def recipe(function):
    """Decorates a model function so that its models remember how they were built.

    The model gets `model.recipe`, a dictionary of "function" (such as "transfer.xception") and
    "arguments": every argument by name, defaults included, tuples as lists. An argument called
    `weights` is left out: trained weights are stored beside the recipe, not named by it.

    Args:
        function: returns a `keras.Model`; takes JSON values (and tuples), and `weights`.

    Returns:
        The function, with the same signature.

    Raises:
        UsageError: at the call, where an argument cannot be written as JSON.
    """
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    signature = inspect.signature(function)

    @functools.wraps(function)
    def build(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        bound.arguments.pop("weights", None)
        arguments = {key: _plain(value, name, key) for key, value in bound.arguments.items()}
        model = function(*args, **kwargs)
        model.recipe = {"function": name, "arguments": arguments}
        return model

    # A function from elsewhere (an experiment's page) records its recipe too, but cannot take
    # the place of one of the house.
    if function.__module__.startswith(_HOUSE):
        _functions[name] = build
    return build


def rebuild(recorded):
    """Builds a model again from its recipe, with random weights.

    Args:
        recorded: dictionary of "function" and "arguments", as `model.recipe` holds it or as
            it was read from JSON.

    Returns:
        An uncompiled `keras.Model` of the same architecture; `load_weights("model.keras")`
        completes it.

    Raises:
        UsageError: where the recipe is malformed or names an unknown function or argument.
    """
    for module in MODULES:
        importlib.import_module(_HOUSE + module)
    if not isinstance(recorded, dict) or set(recorded) != {"function", "arguments"}:
        raise UsageError('a recipe must hold "function" and "arguments", and nothing else')
    name, arguments = recorded["function"], recorded["arguments"]
    if not isinstance(name, str) or name not in _functions:
        known = ", ".join(sorted(_functions))
        raise UsageError(f"the recipe names an unknown model function {name!r}; known: {known}")
    function = _functions[name]
    known = list(inspect.signature(function).parameters)
    allowed = [key for key in known if key != "weights"]
    if not isinstance(arguments, dict) or not set(arguments) <= set(allowed):
        raise UsageError(
            f"the recipe of {name} must hold arguments out of {', '.join(allowed)}; "
            f"it holds {arguments!r}"
        )
    random = {"weights": None} if "weights" in known else {}
    values = {key: _tuples(value) for key, value in arguments.items()}
    try:
        return function(**values, **random)
    except (TypeError, ValueError) as fault:
        raise UsageError(f"the recipe of {name} cannot be built: {fault}") from fault


def _plain(value, name, key):
    """Writes a value as JSON has it: tuples as lists, NumPy's numbers as Python's."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(item, name, key) for item in value]
    if isinstance(value, dict) and all(isinstance(item, str) for item in value):
        return {item: _plain(inner, name, key) for item, inner in value.items()}
    raise UsageError(
        f"{name}: argument {key} must be a number, string, None, or a list or dictionary of "
        f"them, so that it can be stored with the run; got {type(value).__name__}"
    )


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
