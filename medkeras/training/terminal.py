"""What a run says: a bar with the time left on a terminal, one line per epoch in a log."""

import logging
import sys
import time
from pathlib import Path

from rich.console import Console

from medkeras import progress

SHOWN = 60
# Of several findings: the curves of each, in lines of their own where there are not too many.
CURVES, SIDES, FINDINGS = ("auc", "sensitivity", "specificity"), ("", "val_"), 5


class Terminal:
    """Prints, and keeps the same lines in `log.txt`.

    Args:
        folder: of the run, or None before there is one.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self.console = Console(soft_wrap=True, highlight=False, markup=False)
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """Prints a line and keeps it."""
        self.console.print(line)
        if self.folder:
            stamp = time.strftime("%H:%M:%S", time.gmtime())
            with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
                log.write(f"{stamp} {line}\n")

    def bar(self, title: str):
        """Shows a bar while a block runs; see `progress.bar`."""
        return progress.bar(title, self.console)

    def problems(self, problems, root) -> None:
        """Prints what is wrong with the data as one table, errors first."""
        ordered = sorted(problems, key=lambda problem: problem.severity != "error")
        self.say(f"{len(ordered)} problem(s) with the data in {root}:")
        for problem in ordered[:SHOWN]:
            self.say(
                "  " + " | ".join(p for p in (problem.path, problem.reason, problem.remedy) if p)
            )
        if len(ordered) > SHOWN:
            self.say(f"  ... and {len(ordered) - SHOWN} more; all of them are in problems.csv")


class Spoken(logging.Handler):
    """Says the library's warnings like everything else of a run.

    Args:
        terminal: `Terminal`.
    """

    def __init__(self, terminal):
        super().__init__(logging.WARNING)
        self.terminal = terminal

    def emit(self, record):
        self.terminal.say(f"warning: {record.getMessage()}")


def epoch_line(row: dict, epochs: int, best: bool) -> str:
    """Formats a history row: one line, and one for each of a few findings.

    Args:
        row: of the history.
        epochs: most epochs of the stage.
        best: whether it is the best epoch so far.
    """
    findings = [name.removeprefix("val_auc_") for name in row if name.startswith("val_auc_")]
    apart = {f"{side}{kind}_{finding}" for finding in findings for kind in CURVES for side in SIDES}
    apart |= {"stage", "epoch", "learning_rate"}
    numbers = [f"{name} {value:.4f}" for name, value in row.items() if name not in apart]
    if len(findings) > FINDINGS:
        aucs = [row[f"val_auc_{finding}"] for finding in findings]
        known = [auc for auc in aucs if auc == auc]  # NaN: undefined
        mean = f"{sum(known) / len(known):.3f}" if known else "undefined"
        numbers.append(f"mean val_auc of {len(known)} findings {mean}")
    head = f"stage {row['stage']} epoch {row['epoch']}/{epochs}"
    rate = f"learning rate {row['learning_rate']:.0e}"
    lines = ["  ".join([head, *numbers, rate, "best" if best else ""]).rstrip()]
    for finding in findings if len(findings) <= FINDINGS else ():
        values = [f"{kind} {_short(row[f'val_{kind}_{finding}'])}" for kind in CURVES]
        lines.append(f"  validation, {finding:{max(map(len, findings))}}  {'  '.join(values)}")
    return "\n".join(lines)


def _short(value):
    return "undefined" if value != value else f"{value:.3f}"


def error(line: str) -> None:
    """Prints a line to the standard error."""
    print(line, file=sys.stderr, flush=True)
