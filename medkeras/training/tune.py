"""KerasTuner sweeps over the hyperparameters that `build(hp)` declares.

A trial trains stage one as the run itself would: same data (the test part out of reach),
same loop, and where the backbone is frozen the same stored features, so that all trials
together pay for the backbone once.
"""

import hashlib
import json
import math

import keras
import keras_tuner
import pandas as pd

from medkeras.errors import Interrupted, MedkerasError, UsageError
from medkeras.files import atomic
from medkeras.training import board, features, fit, loop, settling

ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}


def choose(build, data, run, rules=None, **fixed_rules):
    """Chooses the hyperparameters of a run: defaults, `--set`, or the winner of `--tune`.

    Args:
        build: function of `HyperParameters` that returns a compiled model.
        data: from `pipeline.images`.
        run: from `runs.start`.
        rules: function of `HyperParameters` that returns the arguments of stage one's `fit.fit`,
            where one of them is a hyperparameter: a patience, say, but not the epochs, monitor or
            mode. The sweep scores that stage only, and says so.
        fixed_rules: the same arguments where none is.

    Returns:
        `keras_tuner.HyperParameters`; the random state is the run's afterwards, whichever
        way was gone, so that a resumed run builds the same model.

    Raises:
        UsageError: an unknown name or a value that cannot be used in `--set`.
        MedkerasError: every trial failed.
    """
    run.opened(data)
    fixed = {name: text for name, text in run.fixed.items() if name not in run.choices}
    hp = keras_tuner.HyperParameters()
    rules = rules or (lambda hp: fixed_rules)
    if fixed or run.flags.tune:
        space = declared(build, rules, fixed)
        for name, text in fixed.items():
            hp.Fixed(name, value_of(space, name, text, also=run.choices))
    if run.flags.tune:
        hp = _Sweep(build, hp, space, data.without_test(), run, rules).winner()
    keras.utils.set_random_seed(run.seed)
    run.hyperparameters = hp
    return hp


def declared(build, rules=lambda hp: {}, fixed=None) -> dict:
    """Builds once on fresh hyperparameters and returns what was declared, by name.

    Args:
        build: as in `choose`.
        rules: as in `choose`.
        fixed: texts of `--set` by name. Where the defaults cannot be built, such as several
            backbones from one file, what they declared so far is set, and it is tried again.

    Raises:
        MedkerasError: neither way can be built.
    """
    fixed, known = fixed or {}, {}
    while True:
        hp = keras_tuner.HyperParameters()
        for name in known.keys() & fixed.keys():
            hp.Fixed(name, value_of(known, name, fixed[name]))
        try:
            build(hp)
            rules(hp)
            return {declaration.name: declaration for declaration in hp.space} | known
        except MedkerasError:
            found = {declaration.name: declaration for declaration in hp.space}
            if not found.keys() & fixed.keys() - known.keys():
                raise
            known = found | known


def value_of(space, name, text, also=()):
    """Reads the value of a `--set NAME=VALUE`.

    Args:
        space: from `declared`.
        name: of the hyperparameter.
        text: its value as typed.
        also: names that are known too, for the message.

    Raises:
        UsageError: unknown name, or a value outside of what was declared.
    """
    if name not in space:
        known = ", ".join(sorted([*space, *also]))
        raise UsageError(f"--set {name}: unknown; known are {known or 'none'}")
    declaration = space[name]
    kind = type(declaration.default)
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise UsageError(f"--set {name}={text}: expected a {kind.__name__}") from None
    values = getattr(declaration, "values", None) if hasattr(declaration, "ordered") else None
    if values is not None and value not in values:
        raise UsageError(f"--set {name}={text}: choose from {', '.join(map(str, values))}")
    low, high = getattr(declaration, "min_value", None), getattr(declaration, "max_value", None)
    if low is not None and high is not None and not low <= value <= high:
        raise UsageError(f"--set {name}={text}: outside of {low:g}..{high:g}")
    return value


class _Sweep:
    def __init__(self, build, hp, space, data, run, rules):
        self.build, self.hp, self.data, self.run = build, hp, data, run
        self.arguments = rules
        self.rules, self.weights = self.rules_of(hp.copy())
        self.folder = run.folder / "tuning"
        self.fingerprint = _fingerprint(hp, space, data, run, self.rules, self.weights)
        self.reasons = {}

    def rules_of(self, hp):
        """Returns `loop.Rules` and the weights of the classes for some hyperparameters."""
        arguments = dict(self.arguments(hp))
        weights = fit.weights_of(arguments.pop("class_weight", None), self.data)
        epochs = self.run.capped(arguments.pop("epochs"))
        return loop.Rules(epochs=epochs, **arguments), weights

    def winner(self):
        """Runs what is left of the sweep and returns the best hyperparameters."""
        self._same_sweep()
        tuner = self._tuner()
        self.run.say(
            f"sweep: {self.run.flags.tune} trials ({self.run.flags.tuner}) of stage one by "
            f"{self.rules.monitor}, on training and validation pictures only"
        )
        try:
            tuner.search(verbose=0)
        except keras_tuner.errors.FatalError as fault:
            raise fault.__cause__ from None
        trials = self._trials(tuner.oracle)
        atomic.write_csv(self.folder / "trials.csv", trials)
        done = trials[trials["status"] == "COMPLETED"]
        if done.empty:
            reasons = "; ".join(sorted(set(trials["reason"])))
            raise MedkerasError(f"all {len(trials)} trials of the sweep failed: {reasons}")
        best = done.sort_values("score", ascending=self.rules.mode == "min", kind="stable").iloc[0]
        failed = len(trials) - len(done)
        self.run.say(
            f"sweep: trial {best['trial']} won with {self.rules.monitor} {best['score']:.4f}; "
            f"{len(done)} finished, {failed} failed"
        )
        return tuner.oracle.trials[best["trial"]].hyperparameters.copy()

    def train(self, trial):
        """Trains one trial and returns its score."""
        keras.utils.set_random_seed(self.run.seed)
        rules, _ = self.rules_of(trial.hyperparameters)
        # Hyperband asks for few epochs first. A promoted trial starts again: same seeds,
        # same first epochs, and the frozen part is stored.
        epochs = trial.hyperparameters.values.get("tuner/epochs")
        if epochs:
            rules = loop.Rules(**{**vars(rules), "epochs": min(epochs, rules.epochs)})
        model = self.build(trial.hyperparameters)
        settling.settle(model, self.data)
        feed = features.feed(model, self.data)
        title = f"trial {trial.trial_id}"
        with self.run.terminal.bar(title) as shown:
            hooks = loop.Hooks(
                computed=lambda done, total: shown(done, total, "computing the frozen part"),
                step=lambda batch, batches, epoch: shown(epoch + batch / batches, rules.epochs),
                stopped=self.run.stopping,
            )
            progress = loop.train(
                feed, self.data, rules, seed=self.run.seed, class_weight=self.weights, hooks=hooks
            )
        values = fit.visible(trial.hyperparameters)
        chosen = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        self.run.say(f"{title}: {rules.monitor} {progress.best:.4f}  {chosen}")
        return progress

    def _tuner(self):
        sweep = self

        class Tuner(keras_tuner.Tuner):
            def run_trial(self, trial, *args, **kwargs):
                try:
                    progress = sweep.train(trial)
                except (OSError, Interrupted) as fault:
                    # A signal or a full disk is no fault of the trial: it begins again.
                    raise keras_tuner.errors.FatalError(str(fault)) from fault
                except (MedkerasError, ValueError, MemoryError) as fault:
                    sweep.run.say(f"trial {trial.trial_id} failed: {fault}")
                    raise keras_tuner.errors.FailedTrialError(str(fault)) from fault
                sweep.log(trial, progress)
                return {sweep.rules.monitor: progress.best}

            def load_model(self, trial):
                raise NotImplementedError("the winner is trained anew")

        options = {
            "objective": keras_tuner.Objective(self.rules.monitor, self.rules.mode),
            "seed": self.run.seed,
            "hyperparameters": self.hp,
            # One more than there are: that all of them failed is said by `winner`.
            "max_consecutive_failed_trials": self.run.flags.tune + 1,
        }
        if self.run.flags.tuner == "hyperband":
            options["max_epochs"] = self.rules.epochs
            options["hyperband_iterations"] = self.run.flags.tune  # until there are enough trials
        oracle = ORACLES[self.run.flags.tuner](**options)
        # Set, because Hyperband's own arguments have no number of trials.
        oracle.max_trials = self.run.flags.tune
        return Tuner(
            oracle,
            self.build,
            directory=str(self.folder),
            project_name="trials",
            overwrite=False,
        )

    def log(self, trial, progress):
        """Writes a trial for TensorBoard's HParams tab."""
        writer = board.Board(self.run.folder / "tensorboard" / "trials" / trial.trial_id)
        scores = {f"trial/{self.rules.monitor}": progress.best}
        writer.trial(trial.trial_id, fit.visible(trial.hyperparameters), scores)
        writer.close()

    def _trials(self, oracle):
        rows = []
        for number, trial in sorted(oracle.trials.items()):
            finite = trial.score is not None and math.isfinite(trial.score)
            row = {
                "trial": number,
                "status": trial.status if finite or trial.status != "COMPLETED" else "FAILED",
                "score": trial.score if finite else None,
                "epochs": trial.hyperparameters.values.get("tuner/epochs", self.rules.epochs),
                **fit.visible(trial.hyperparameters),
                "reason": (trial.message or "").strip().splitlines()[-1:] or [""],
            }
            rows.append({**row, "reason": row["reason"][0]})
        return pd.DataFrame(rows)

    def _same_sweep(self):
        """Refuses to mix trials of another space, data set or budget: KerasTuner would."""
        kept = self.folder / "fingerprint.json"
        if kept.exists() and json.loads(kept.read_text())["fingerprint"] != self.fingerprint:
            raise UsageError(
                "the sweep's hyperparameters, data or budget are others than when it began: "
                "start another run"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(kept, {"fingerprint": self.fingerprint})


def _fingerprint(hp, space, data, run, rules, weights):
    described = {
        "space": {name: repr(d.get_config()) for name, d in sorted(space.items())},
        "fixed": hp.values,
        "data": data.key,
        "split": data.table["split"].tolist(),
        "rules": vars(rules),
        "class_weight": weights,
        "tune": [run.flags.tune, run.flags.tuner, run.seed],
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
