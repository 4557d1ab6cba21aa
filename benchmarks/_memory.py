"""The peak of memory of this process; apart from `_measure`, which starts TensorFlow."""

from pathlib import Path


def peak() -> float:
    """Returns the most memory that this process has held, MB (read from /proc: Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def restart():
    """Forgets the peak so far: it is now what this process holds."""
    Path("/proc/self/clear_refs").write_text("5")
