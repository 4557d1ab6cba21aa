"""Writes a made-up data set, in the layout of the real one, with known truth.

    python -m medkeras.phantoms knee_xray OUT
    python -m medkeras.phantoms knee_xray OUT --set films=dicom --set patients=8
    python -m medkeras.phantoms chest OUT --set difficulty=0

The first word is one of bone, chest, knee_mri, knee_grades and knee_xray. The settings are the
arguments of its function; an unknown one is answered with the list of them. Exit code 0, or 2 for
what cannot be used.
"""

import ast
import inspect
import sys

from medkeras import commands
from medkeras.errors import MedkerasError, UsageError
from medkeras.phantoms import bone, chest, knee_mri, knee_xray

WRITERS = {
    "bone": bone.write,
    "chest": chest.write,
    "knee_mri": knee_mri.write,
    "knee_grades": knee_xray.write_grades,
    "knee_xray": knee_xray.write,
}


def main(argv=None) -> int:
    """Runs the command; returns its exit code."""
    parser = commands.parser("python -m medkeras.phantoms", __doc__)
    parser.add_argument("family", choices=list(WRITERS), help="which data set")
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    flags = parser.parse_args(argv)
    try:
        print(WRITERS[flags.family](flags.out, **_settings(flags.family, flags.set)))
    except MedkerasError as fault:
        print(f"phantoms: {fault}", file=sys.stderr)
        return fault.exit_code
    return 0


def _settings(family, pairs):
    parameters = inspect.signature(WRITERS[family]).parameters
    known = {name: one.default for name, one in parameters.items() if name != "root"}
    found = {}
    for pair in pairs:
        name, given, value = pair.partition("=")
        if name not in known or not given:
            listed = ", ".join(f"{name}={default}" for name, default in known.items())
            raise UsageError(f"--set {pair}: expected one of {listed}")
        found[name] = _read(name, value, known[name])
    return found


def _read(name, text, default):
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text
    numbers = (int, float)
    if isinstance(default, numbers) and not isinstance(value, numbers):
        raise UsageError(f"--set {name}={text}: expected a number, as {default}")
    if isinstance(default, tuple) and not isinstance(value, tuple):
        raise UsageError(f"--set {name}={text}: expected several, as {','.join(map(str, default))}")
    return value


if __name__ == "__main__":
    sys.exit(main())
