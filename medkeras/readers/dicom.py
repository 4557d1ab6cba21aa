"""Imports a folder of DICOM files: films as PNG, MR series as volumes, and one table.

    python -m medkeras.readers.dicom IN OUT
    python -m medkeras.readers.dicom IN OUT --voi percentile --bits 16
    python -m medkeras.readers.dicom IN OUT --linkage ~/private/link.csv

    OUT/images.csv                        one row per picture or volume
    OUT/refused.csv                       one row per file that was not imported, with the reason
    OUT/<patient>/<study>/<image>.png     a film: CR, DX, IO, MG, PX; 8 or 16 bit
    OUT/<patient>/<study>/<image>_R.png   the right half of a film of both knees, _L the left
    OUT/<patient>/<study>/<series>.npy    an MR series (slices, rows, columns), uint8 or uint16

IN is walked; a DICOMDIR in it is recognised and never followed, links are not followed, hidden
files are left out. OUT is filled when all is done; after Ctrl-C, a signal or an error nothing of
it stays. Nothing is written into IN.

Grey values: bits in use, modality LUT or rescale, the window (`--voi`), MONOCHROME1 turned round,
padding black. A volume has one window for all its slices: the median of theirs. How slices become
volumes: `dicom_series`; how a film of both knees is cut: `dicom_knees`.

Kept are the technical values of `medkeras.files.dicom_tags`, sex, and age in years (90 for older).
Patient, study, series and image are keyed hashes (HMAC-SHA-256, 16 hexadecimal digits) under a key
that stays on this machine; the same key gives the same ids in a later import. Text in the pixels is
not looked for: what declares it is refused; the column `burned_in` says `no` where the file does,
else `not checked`.

A terminal shows the names of refused files, which may hold a patient's. Where the output goes into
a file or a pipe, and in refused.csv, their keyed hashes stand instead: the linkage resolves them.
Exit code 0, or 3 where a picture was refused (unless `--skip-bad`) or none was imported, or 128 and
the number of the signal that stopped it.
"""

import os
import signal
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from medkeras import commands
from medkeras.errors import DataError, MedkerasError, ResourceError, UsageError
from medkeras.files import atomic, dicom_tags, grey
from medkeras.files.foreign import printable
from medkeras.files.places import key_file
from medkeras.progress import bar
from medkeras.readers import dicom_knees, dicom_private, dicom_survey, dicom_write
from medkeras.readers.dicom_survey import Import

SHOWN = 60


def convert(
    source,
    out,
    *,
    voi: str = "first",
    bits: int = 8,
    knees: str = "auto",
    allow_burned_in: bool = False,
    linkage=None,
    key: bytes | None = None,
    progress=None,
) -> Import:
    """Imports a folder of DICOM files.

    Args:
        source: the folder, walked with everything below it.
        out: folder to write; must be empty or absent, and apart from `source`.
        voi: window: "first" in the file (percentile where there is none), "percentile" (0.5 to
            99.5 % of the pixels that are not padding) or "none" (range of the declared bits).
        bits: of the grey values, 8 or 16.
        knees: "auto" cuts films of both knees, "split" all films of knees without a side,
            "whole" none.
        allow_burned_in: accept pictures that say that text may stand in their pixels.
        linkage: csv file to write with the names in `source` and in `out`, readable by its
            owner alone; outside of both folders. It undoes the pseudonyms.
        key: secret of the keyed hashes; None for the one in `places.key_file()`.
        progress: function of (steps done, steps in all), or None.

    Returns:
        What became of every file. Without any picture, `out` is not written.

    Raises:
        UsageError: folders or options that cannot be used.
        ResourceError: the disk is full or not writable.
    """
    # Resolved, because a link is not what a finished folder can take the place of.
    source, out = Path(source), Path(out).resolve()
    _refuse_places(source, out, linkage)
    key = key or dicom_private.secret()
    options = {"key": key.hex(), "voi": voi, "bits": bits, "allow_burned_in": allow_burned_in}
    done = Import()
    paths = dicom_survey.files(source, done)
    step = _steps(progress, 2 * len(paths))

    def survey(path):
        return dicom_survey.read(source, path, options, pixels=False)[0]

    linked = dicom_private.reserved(linkage) if linkage else nullcontext()
    try:
        with (
            linked as link,
            dicom_write.complete(out, lambda: done.written) as folder,
            _threads() as (pool, stopping),
        ):
            surveyed = {}
            for path, found in zip(paths, pool.map(survey, paths), strict=True):
                surveyed[path] = found
                step(1)
            facts = dicom_survey.pictures(surveyed, done)
            dicom_survey.drop_copies(source, facts, options, done)
            work = dicom_survey.tasks(facts, done)
            step(len(paths) - sum(len(task.paths) for task in work))
            writer = dicom_write.Writer(source, folder, options, knees, stopping)
            rows = []
            for task, (found, problems) in zip(work, pool.map(writer, work), strict=True):
                rows += found
                done.problems += problems
                for path in task.paths if found else ():
                    done.written[path] = [row["path"] for row in found]
                step(len(task.paths))
            done.images = dicom_write.table(rows)
            if rows:
                atomic.write_csv(folder / "images.csv", done.images)
                atomic.write_csv(folder / "refused.csv", dicom_write.refused(done.problems, key))
            if link:
                link(dicom_private.links(done, key))
    except OSError as fault:
        raise ResourceError(f"{out}: cannot be written ({fault.strerror or fault})") from fault
    return done


def main(argv=None) -> int:
    """Runs the command; returns its exit code: 0, 2 (usage), 3 (refused pictures), 4, 130, 143."""
    parser = commands.parser("python -m medkeras.readers.dicom", __doc__)
    add = parser.add_argument
    add("source", metavar="IN", help="folder of DICOM files")
    add("out", metavar="OUT", help="folder to write, empty or absent")
    add("--voi", choices=grey.POLICIES, default="first", help="window (default: first in file)")
    add("--bits", type=int, choices=(8, 16), default=8, help="of the grey values (default 8)")
    add("--knees", choices=dicom_knees.MODES, default="auto", help="cut films of both knees")
    add("--allow-burned-in", action="store_true", help="accept pictures that may show text")
    add("--skip-bad", action="store_true", help="exit 0 although pictures were refused")
    add("--linkage", metavar="FILE", help="write which file became which picture: identifies!")
    flags = parser.parse_args(argv)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        new = not key_file().exists()
        with _stoppable(), bar("importing", console) as progress:
            done = convert(
                flags.source,
                flags.out,
                voi=flags.voi,
                bits=flags.bits,
                knees=flags.knees,
                allow_burned_in=flags.allow_burned_in,
                linkage=flags.linkage,
                progress=progress,
            )
        _say(console, done, flags, new)
    except MedkerasError as fault:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(str(fault))
        return fault.exit_code
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        print(f"stopped by signal {number}, nothing was imported", file=sys.stderr)
        return 128 + number
    bad = any(problem.severity == "error" for problem in done.problems)
    return DataError.exit_code if not done.written or (bad and not flags.skip_bad) else 0


def _say(console, done, flags, new):
    # A log that is passed on must not name patients.
    key = None if console.file.isatty() else dicom_private.secret()
    refused = [problem for problem in done.problems if problem.severity == "error"]
    for problem in refused[:SHOWN]:
        name = dicom_tags.keyed(key, "file", problem.path) if key else problem.path
        console.print(f"  {printable(name)} | {problem.reason} | {problem.remedy}")
    if len(refused) > SHOWN:
        console.print(f"  ... and {len(refused) - SHOWN} more; --linkage FILE lists all")
    noted = (note for notes in done.images["notes"] for note in notes.split("; ") if note)
    for note, times in Counter(noted).most_common():
        console.print(f"  {times} of {len(done.images)} pictures and volumes, imported: {note}")
    others = Counter(problem.reason for problem in done.problems if problem.severity != "error")
    for reason, times in others.most_common():
        console.print(f"  {times} {'file' if times == 1 else 'files'}, not imported: {reason}")
    if done.written:
        console.print(
            f"Ids are keyed hashes. The key is {key_file()}{' (new)' if new else ''}: keep it to "
            "yourself, whoever has it can recompute them."
        )
        unchecked = int((done.images["burned_in"] != "no").sum())
        if unchecked:
            console.print(
                f"{unchecked} of {len(done.images)} may show text in their pixels, such as a "
                "name: this was not checked."
            )
    files = len(done.written) + len(done.problems) + done.directories
    console.print(
        f"{files} files: {len(done.written)} imported as {len(done.images)} pictures and volumes, "
        f"{len(refused)} refused, {others.total()} are copies or no pictures, "
        f"{done.directories} DICOMDIR; {done.hidden} hidden entries left out."
    )
    out = printable(flags.out)
    console.print(out if done.written else f"{out}: not written, no picture")


def _steps(progress, total):
    done = 0

    def step(number):
        nonlocal done
        done += number
        if progress:
            progress(done, total)

    return step


def _refuse_places(source, out, linkage):
    if not source.is_dir():
        raise UsageError(f"{source}: is not a folder of DICOM files")
    inner = source.resolve()
    if inner.is_relative_to(out) or out.is_relative_to(inner):
        raise UsageError(f"{out}: lies in {source} or around it; name a folder apart from it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is not empty; nothing was overwritten")
    if linkage:
        link = Path(linkage).resolve()
        if link.is_relative_to(inner) or link.is_relative_to(out):
            raise UsageError(f"{linkage}: names patients, so it must lie outside of IN and OUT")
        if link.exists() or not link.parent.is_dir():
            raise UsageError(f"{linkage}: exists already, or its folder does not")


@contextmanager
def _threads():
    """Yields a pool, and the event that is set when its work is not wanted any more."""
    stopping = threading.Event()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            yield pool, stopping
        except BaseException:
            stopping.set()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _stoppable():
    """Makes a signal to stop a KeyboardInterrupt; a second one does not disturb the cleaning."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # The terminal was closed: nohup has that ignored, and Windows does not know it.
    closed = getattr(signal, "SIGHUP", None)
    if closed and signal.getsignal(closed) != signal.SIG_IGN:
        before[closed] = signal.getsignal(closed)

    def stop(number, frame):
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt(int(number))

    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
