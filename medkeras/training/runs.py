"""A run: the command line and the run folder.

`start(main, __doc__, data=..., sample=...)` is the last line of every experiment. It reads
the flags, makes or reopens the run folder, and has `carry` call `main(run)` and turn what happens
into a status, a message and an exit code: 0 ok, 2 usage, 3 data problems, 4 resources, 5 diverged,
75 folder busy, 130 and 143 interrupted. The last line printed is the run folder.
"""

import copy
import inspect
import sys
from functools import cached_property
from pathlib import Path

import pandas as pd

from medkeras.errors import DataError, Interrupted, MedkerasError, Problem, UsageError
from medkeras.files import atomic
from medkeras.files.places import cache_folder
from medkeras.phantoms import folder as phantoms
from medkeras.preparation import audit, findings
from medkeras.readers import tables
from medkeras.training import carry, commandline, environment, folder, lineage, parts, terminal

# What a head's folder has of the whole run's.
CARRIED = ("status.json", "environment.json", "hyperparameters.json", "split.csv", lineage.KEPT)


def start(
    main, doc, *, data, sample, sample_size=96, grid=(), compare=None, several=True, argv=None
):
    """Runs an experiment from the command line and exits.

    Args:
        main: function of a `Run`.
        doc: the page's docstring: question and commands; it is `--help`.
        data: default data folder, relative to the project.
        sample: function (root, size=) that writes the phantoms.
        sample_size: their height and width in pixels, without `--image-size`.
        grid: dicts of settings, one for each run of a grid: all are run, each in a folder of its
            own with its settings as if by `--set`. Empty for a single run.
        compare: what writes the comparison of a grid's runs, see `parts.summary`.
        several: whether `--folds` and `--null-control`, which sum up one number, can be given.
        argv: arguments; None for those of the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    argv = sys.argv[1:] if argv is None else argv
    page = Path(inspect.getfile(main)).resolve()
    try:
        flags = commandline.parse(doc, page.stem, argv)
        if not several and (flags.folds or flags.null_control):
            flag = "--folds" if flags.folds else "--null-control"
            reason = "sums up one number a run, and this page has several heads: leave it out"
            raise UsageError(f"{flag} {reason}")
        run = Run(page, flags, argv, data, sample, sample_size, grid, compare)
    except MedkerasError as fault:
        terminal.error(f"{page.stem}: {fault}")
        raise SystemExit(fault.exit_code) from None
    raise SystemExit(carry.carry_out(run, main))


class Run:
    """Where and how an experiment runs; never what its hyperparameters are.

    Args:
        page: the experiment's file.
        flags: from `commandline.parse`.
        argv: as given.
        data: default data folder.
        sample: function that writes the phantoms.
        sample_size: of the phantoms, pixels.
        grid: settings of each run of a grid, see `start`.
        compare: writes their comparison.

    Attributes:
        folder: of the run.
        data: folder of the pictures.
        seed: of split, order, weights.
        sample: whether the pictures are the page's own phantoms.
        weights: "auto", "imagenet", a file, or None for random.
        history: rows of the finished stages.
        hyperparameters: `keras_tuner.HyperParameters` from `tune.choose`, or None.
        choices: what `choice` returned, by name.
        several: the parts of a run of several, or an empty list.
        compare: writes the comparison of a grid's runs.
        signals: numbers of those that asked to stop.
        part: what this run is of a larger one, from `parts`: a fold, a null or a run
            of a grid; else None.
    """

    def __init__(self, page, flags, argv, data, sample, sample_size, grid=(), compare=None):
        self.experiment = page.stem
        self.project = page.parent.parent if page.parent.name == "experiments" else Path.cwd()
        runs = self.project / "saved_models" / self.experiment
        self.folder, self.resumed = folder.place(runs, flags.out, flags.resume)
        flags.grid = list(grid)
        if self.resumed:
            stored = folder.read(self.folder / "environment.json").get("arguments", {})
            flags = commandline.merged(flags, stored, argv)
            parts.same_grid(flags, stored)
        self.several, self.compare = parts.of(flags), compare
        self.flags, self.command = flags, commandline.command(argv, page)
        self.seed, self.skip_bad, self.workers = flags.seed, flags.skip_bad, flags.workers
        self.weights = None if flags.weights == "none" else flags.weights
        default = self.project / data
        self.sample = flags.sample or (flags.data is None and not default.exists())
        self.data = Path(flags.data) if flags.data else default
        self._write_sample, self._sample_size = sample, flags.image_size or sample_size
        self.part = None
        self.signals = []
        self.fresh()
        self.terminal = terminal.Terminal()

    # What an experiment's page calls.

    def image_shape(self, height, width, channels) -> tuple[int, int, int]:
        """Returns the shape to use: `--image-size`, small for sample data, else as given."""
        size = self._sample_size if self.sample else self.flags.image_size
        return (size or height, size or width, channels)

    @cached_property  # every figure asks, and it looks into each folder of the data
    def synthetic(self) -> bool:
        """Whether the pictures are phantoms, the page's own or others."""
        return self.sample or phantoms.are_phantoms(self.data)

    def choice(self, name: str, values, default: str) -> str:
        """Returns a setting that the data depend on, such as the finding: `--set NAME=VALUE`.

        No sweep searches it: trials of other data cannot be compared.

        Args:
            name: of the setting.
            values: that it may have.
            default: where nothing is set.

        Raises:
            UsageError: another value; lists them.
        """
        chosen = self.fixed.get(name, default)
        if chosen not in values:
            raise UsageError(f"--set {name}={chosen}: choose from {', '.join(values)}")
        self.choices[name] = chosen
        return chosen

    def read(self, reader) -> pd.DataFrame:
        """Reads the data folder into a table and opens every picture once.

        Args:
            reader: function of a folder, such as `readers.bone.read`.

        Returns:
            The table, without the broken pictures where `--skip-bad` was given.

        Raises:
            DataError: everything that is wrong, before training starts.
        """
        if self.sample:
            size = self._sample_size
            self.data = cache_folder() / "phantoms" / f"{self.experiment}-{size}"
            self.say(f"sample data: synthetic pictures of {size} pixels, written to {self.data}")
            self._write_sample(self.data, size=size)
        elif not self.data.is_dir():
            raise DataError(
                [Problem(str(self.data), "is not a folder", "check --data, or use --sample")]
            )
        elif self.synthetic:
            self.say(f"synthetic pictures: {self.data} holds phantoms")
        with self.terminal.bar("checking pictures") as shown:
            table = audit.opened(
                reader, self.data, self.skip_bad, shown, resplit=self.flags.resplit
            )
        table = parts.nulled(table, self)
        skipped = table.attrs.get("skipped", [])
        if skipped:
            self.say(f"{len(skipped)} broken picture(s) left out (--skip-bad):")
            for problem in skipped[: terminal.SHOWN]:
                self.say(f"  {problem['path']} | {problem['reason']}")
        self.say(findings.line(table))
        return table

    @property
    def fixed(self) -> dict:
        """Values of `--set` by name, as typed."""
        return dict(pair.split("=", 1) for pair in self.flags.set)

    @property
    def splitting(self) -> dict:
        """Arguments for `splits.by_patient`."""
        fold = self.part.fold if self.part else None
        return {"seed": self.seed, "resplit": self.flags.resplit, "fold": fold}

    @property
    def loading(self) -> dict:
        """Arguments for `pipeline.images`."""
        return {"seed": self.seed, "workers": self.workers}

    # What training and evaluation call.

    def say(self, line: str) -> None:
        """Prints a line and keeps it in `log.txt`."""
        self.terminal.say(line)

    def opened(self, data) -> None:
        """Records the data set of the run; a resumed run must have the same.

        Args:
            data: from `pipeline.images`.

        Raises:
            DataError: pictures, labels or split are others than when the run began, or it would
                judge by patients whom the starting weights were trained on.
        """
        if self._known == data.key:
            return
        named = ["class"] if "class" in data.table else []
        table = data.table[["path", "patient", "split", *tables.labels(data.table), *named]]
        kept = self.folder / "split.csv"
        if self.resumed and kept.exists():
            now = table.to_csv(index=False, lineterminator="\n")
            same = kept.read_text(encoding="utf-8") == now
            stored = folder.read(self.folder / "environment.json").get("data", {})
            if not same or stored.get("fingerprint") != data.key:
                raise DataError(
                    [
                        Problem(
                            str(self.data),
                            "is not what it was when the run began",
                            "restore it, or start another run with another --out",
                        )
                    ]
                )
        lineage.check(self.weights, table)
        atomic.write_csv(kept, table)
        lineage.keep(self.weights, self.folder)
        self._known = data.key
        self.note(
            data={
                "root_name": self.data.name,
                "fingerprint": data.key,
                "pictures": len(table),
                "patients": int(table["patient"].nunique()),
                "sample": self.sample,
                "synthetic": self.synthetic,
                "null_control": self.part.null if self.part else None,
                "skipped": data.table.attrs.get("skipped", []),
                "notes": data.table.attrs.get("notes", []),
            }
        )
        self.used("image_shape", list(data.image_shape))
        self.used("batch_size", data.batch_size)
        self.used("views", data.views)
        self.used("augmentation", data.augment and data.augment.config())
        if data.policy:
            self.used("uncertain_labels", data.policy.config())

    def next_stage(self) -> int:
        """Returns the number of the next stage, from 1."""
        self.stages += 1
        return self.stages

    def capped(self, epochs: int) -> int:
        """Applies `--epochs` to a stage's number of epochs."""
        return min(epochs, self.flags.epochs or epochs)

    def used(self, name: str, value) -> None:
        """Records a value in `hyperparameters.json`."""
        folder.update(self.folder / "hyperparameters.json", {name: value})

    def note(self, **facts) -> None:
        """Records facts in `environment.json`."""
        folder.update(self.folder / "environment.json", facts)

    def head(self, name: str) -> "Run":
        """Returns the same run with a folder of its own inside, for one head of its model.

        Everything that says how the model came about is carried over, so that what is written
        there makes a whole run: also whom it was trained on, whichever head needed them.

        Args:
            name: of the head and its folder.
        """
        own = copy.copy(self)
        own.experiment, own.folder = f"{self.experiment} {name}", self.folder / name
        own.folder.mkdir(exist_ok=True)
        for file in CARRIED:
            if (self.folder / file).is_file():
                atomic.write_bytes(own.folder / file, (self.folder / file).read_bytes())
        return own

    def stopping(self) -> bool:
        """Says whether a signal asked to stop."""
        return bool(self.signals)

    def epoch_ended(self, row, rules, best: bool) -> None:
        """Prints an epoch's line and records where the run stands."""
        self.say(terminal.epoch_line(row, rules.epochs, best))
        self.status("running", stage=row["stage"], epoch=row["epoch"])

    # What `carry` calls.

    def fresh(self) -> None:
        """Forgets what was trained: each part of a run of several begins anew."""
        self.history, self.stages, self._known, self.hyperparameters = [], 0, None, None
        self.choices = {}

    def begin(self) -> None:
        """Sets seeds and precision, and records how the run was started."""
        self.status("running")
        self.note(
            **environment.prepare(self.seed, self.flags.precision),
            seed=self.seed,
            command=self.command,
            arguments=vars(self.flags),
        )

    def status(self, status: str, **more) -> None:
        """Writes `status.json`."""
        folder.set_status(self.folder, status, **more)

    def stop(self, number, frame) -> None:
        """Handles a signal: the first asks to stop, the second stops at once."""
        if self.signals:
            raise Interrupted(number)
        self.signals.append(number)
        terminal.error("stopping after this batch; once more stops at once")
