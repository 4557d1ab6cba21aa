"""The command line that every experiment has: one closed list of flags."""

import argparse
import shlex
from pathlib import Path

from medkeras import commands
from medkeras.errors import UsageError

KEPT_ON_RESUME = ("data", "seed", "epochs", "image_size", "set", "tune", "tuner", "folds",
                  "weights", "sample", "skip_bad", "resplit", "null_control",
                  "precision")  # fmt: skip


def parser(doc: str, name: str) -> argparse.ArgumentParser:
    """Builds the parser; the experiment's docstring is the help's text.

    Args:
        doc: docstring of the experiment's page.
        name: of the experiment, shown in the usage line.
    """
    made = commands.parser(name, doc)
    add = made.add_argument
    add("--data", metavar="DIR", help="folder of the pictures")
    add("--out", metavar="DIR", help="run folder (default: saved_models/<experiment>/<time>)")
    add("--seed", type=int, default=0, metavar="N", help="of split, order, weights (default 0)")
    add("--epochs", type=positive, metavar="N", help="at most N in each stage")
    add("--image-size", type=positive, metavar="N", help="height and width in pixels")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="fix a hyperparameter")
    add("--tune", type=positive, metavar="TRIALS", help="sweep with KerasTuner first")
    add("--tuner", choices=("random", "hyperband", "bayesian"), default="random")
    add("--folds", type=positive, metavar="K", help="cross-validate: one run a fold")
    add("--workers", type=positive, default=2, metavar="N", help="batches made at a time")
    add("--resume", action="store_true", help="start, continue, or exit 0 where finished")
    add("--weights", default="auto", metavar="auto|imagenet|none|FILE|RUN", help="of the backbone")
    add("--sample", action="store_true", help="write and use synthetic pictures")
    add("--skip-bad", action="store_true", help="leave broken pictures out, and count them")
    add("--resplit", action="store_true", help="ignore a published split")
    add("--null-control", action="store_true", help="permuted labels, then noise pictures")
    add("--strategy", choices=("none", "mirrored", "multiworker"), default="none")
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    return made


def parse(doc: str, name: str, argv: list[str]) -> argparse.Namespace:
    """Reads the flags.

    Args:
        doc: docstring of the experiment's page.
        name: of the experiment.
        argv: arguments without the program's name.

    Raises:
        UsageError: a value that cannot be used.
        SystemExit: 2 on an unknown flag, 0 after `--help`.
    """
    flags = parser(doc, name).parse_args(argv)
    if flags.folds == 1:
        raise UsageError("--folds 1: expected 2 or more")
    if flags.folds and flags.null_control:
        raise UsageError("--folds and --null-control are runs of their own: give one of them")
    if flags.strategy == "multiworker":
        raise UsageError("--strategy multiworker is not available yet; mirrored is")
    if not 0 <= flags.seed < 2**32:
        raise UsageError(f"--seed {flags.seed}: expected 0..{2**32 - 1}")
    if flags.sample and flags.data:
        raise UsageError("--sample writes its own pictures: leave --data out")
    for pair in flags.set:
        if "=" not in pair:
            raise UsageError(f"--set {pair}: expected NAME=VALUE")
    return flags


def merged(flags: argparse.Namespace, stored: dict, argv: list[str]) -> argparse.Namespace:
    """Completes the flags of a resumed run by those it began with.

    Args:
        flags: of this call.
        stored: of the call that began the run.
        argv: arguments of this call, to tell what was said from defaults.

    Raises:
        UsageError: a flag that decides results was given another value.
    """
    if not stored:  # killed before it was written down
        return flags
    said = {word.split("=")[0].lstrip("-").replace("-", "_") for word in argv if word[:2] == "--"}
    for flag in KEPT_ON_RESUME:
        before = stored.get(flag)
        if flag in said and getattr(flags, flag) != before:
            raise UsageError(
                f"--{flag.replace('_', '-')} was {before!r} when the run began: "
                "resume without it, or start another run with another --out"
            )
        setattr(flags, flag, before)
    return flags


def command(argv: list[str], page: Path) -> str:
    """Formats the command line for the records."""
    return shlex.join(["python", f"{page.parent.name}/{page.name}", *argv])


def positive(text: str) -> int:
    """Reads a whole number above 0, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return number
