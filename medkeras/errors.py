"""Faults that a user can mend, each with the exit code that a script ends with."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the data.

    Args:
        path: file, folder or class concerned, relative to the data root where it lies there.
        reason: what was found, and what was expected.
        remedy: what the user can do about it.
        severity: "error" (stops the run) or "note" (handled by a fixed rule, and counted).
    """

    path: str
    reason: str
    remedy: str
    severity: str = "error"

    def as_dict(self) -> dict:
        return asdict(self)


class MedkerasError(Exception):
    """A foreseeable fault: shown as a message, never as a traceback."""

    exit_code = 1


class UsageError(MedkerasError):
    """A flag, name or value that cannot be used."""

    exit_code = 2


class DataError(MedkerasError):
    """Everything wrong with a data set, collected before training starts.

    Args:
        problems: the faults, or one sentence.
        table: what could be read all the same, so that its pictures are checked too.
    """

    exit_code = 3

    def __init__(self, problems, table=None):
        self.table = table
        if isinstance(problems, str):
            problems = [Problem("", problems, "")]
        self.problems = list(problems)
        lines = [": ".join(part for part in (p.path, p.reason) if part) for p in self.problems]
        super().__init__("\n".join(lines))


class ControlFailed(MedkerasError):
    """The null control found something where there is nothing, or could not have found it."""

    exit_code = 3


class ResourceError(MedkerasError):
    """Not enough disk or memory."""

    exit_code = 4


class Diverged(MedkerasError):
    """The loss or a prediction is no longer a finite number."""

    exit_code = 5


class Busy(MedkerasError):
    """Another process is writing to the run folder."""

    exit_code = 75


class Interrupted(MedkerasError):
    """Stopped by a signal, after the state was saved.

    Args:
        signal: number of the signal; the exit code is 128 + signal.
    """

    def __init__(self, signal: int):
        self.exit_code = 128 + signal
        super().__init__(f"stopped by signal {signal}; continue with --resume")
