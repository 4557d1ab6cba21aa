"""What training makes of labels that a report leaves uncertain, or does not mention.

A policy decides for each finding of the training part what an uncertain label counts as:

    ignore           left out: exactly no gradient
    zeros            absent
    ones             present
    soft             a number drawn once from 0.55 to 0.85 (Pham et al. 2021, arXiv 1911.06475)
    soft-each-epoch  drawn anew in every epoch
    multiclass       a third class beside present and absent, which evaluation does not read

Validation and test never see it: what is measured, and what chooses the epoch, are labels that are
stated, and blank ones as `blanks_as` counts them. Ignore, zeros, ones and multiclass are compared
by Irvin et al., "CheXpert", AAAI 2019, arXiv 1901.07031.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medkeras.readers import tables

BLANK = "blank "  # and the name of a finding: a column, as tables.UNCERTAIN
EFFECTS = {
    "ignore": "left out: no gradient",
    "zeros": "counted as absent",
    "ones": "counted as present",
    "soft": "drawn once from {:g} to {:g}",
    "soft-each-epoch": "drawn in every epoch from {:g} to {:g}",
    "multiclass": "a third class",
}
WORDS = tuple(EFFECTS)


@dataclass(frozen=True)
class Policy:
    """What uncertain training labels count as.

    Args:
        words: finding -> one of `WORDS`, in the order of the labels.
        seed: of what is drawn.
        soft: (lowest, highest) of what is drawn.
    """

    words: dict
    seed: int = 0
    soft: tuple[float, float] = (0.55, 0.85)

    @property
    def multiclass(self) -> bool:
        """Whether any finding has a third class, and so a second logit."""
        return "multiclass" in self.words.values()

    def config(self) -> dict:
        """Returns the settings as JSON values."""
        return {"words": dict(self.words), "seed": self.seed, "soft": list(self.soft)}

    def targets(self, labels, uncertain, rows, epoch=0) -> np.ndarray:
        """Makes what the loss compares logits with.

        Args:
            labels: (n, findings), 1, 0 or NaN.
            uncertain: bool (n, findings); never where the label is known.
            rows: (n,) numbers of the rows in the table, for what is drawn.
            epoch: number of the epoch, for what is drawn anew.

        Returns:
            float32 (n, findings), NaN where nothing is to be learned; where a finding is
            "multiclass" (n, 2 findings), see `losses.UncertainCrossEntropy`.
        """
        result = np.array(labels, np.float32)
        third = np.full_like(result, np.nan)
        low, high = self.soft
        for k, word in enumerate(self.words.values()):
            (those,) = np.nonzero(uncertain[:, k])
            if word in ("zeros", "ones"):
                result[those, k] = float(word == "ones")
            elif word.startswith("soft"):
                when = epoch if word == "soft-each-epoch" else 0
                for one in those:
                    chance = np.random.default_rng((self.seed, when, int(rows[one]), k)).random()
                    result[one, k] = low + (high - low) * chance
            elif word == "multiclass":
                third[:, k] = np.where(np.isfinite(result[:, k]), 0.0, np.nan)
                # One half, so that a curve of present against absent takes it for unknown.
                result[those, k], third[those, k] = 0.5, 1.0
        return np.hstack([result, third]) if self.multiclass else result


def chosen(run, findings, default: str) -> Policy:
    """Reads the policy off the command line: `--set uncertain=ones` for every finding.

    `--set "uncertain Edema=zeros"` decides for one finding.

    Args:
        run: from `runs.start`.
        findings: names, in the order of the labels.
        default: word for what is not set.
    """
    every = run.choice("uncertain", WORDS, default)
    words = {}
    for finding in findings:
        name = tables.UNCERTAIN + finding
        words[finding] = run.choice(name, WORDS, every) if name in run.fixed else every
    return Policy(words, run.seed)


def blanks_as(table: pd.DataFrame, value: float) -> pd.DataFrame:
    """Counts findings that a report does not mention as absent (0) or present (1).

    That is a convention of labels mined from reports. Where a set has a published test part
    (paths in `valid/`), which radiologists read, a blank there stays unknown: nobody looked. A
    finding that no report of the table mentions at all stays unknown too.

    Args:
        table: of `readers.chexpert`.
        value: 0.0 or 1.0.

    Returns:
        A copy; `blank <finding>` (bool) marks what was changed.
    """
    result = table.copy()
    mined = ~table["path"].str.startswith("valid/")
    for finding in tables.labels(table):
        uncertain = flags(table, tables.UNCERTAIN + finding)
        mentioned = (table[finding].notna() | uncertain) & mined
        blank = table[finding].isna() & ~uncertain & mined & mentioned.any()
        result[finding] = table[finding].mask(blank, value)
        result[BLANK + finding] = blank
    return result


def counts(data) -> pd.DataFrame:
    """Counts what became of the labels of the training part.

    Args:
        data: `pipeline.Data` of findings.

    Returns:
        DataFrame, a row a finding: `finding`, `present`, `absent` (blank ones not among them),
        `blank` (counted as absent or present), `unknown` (left out), `uncertain`, `policy` (a
        word) and `effect` (what that word means).
    """
    table, rows = data.train.table, []
    for finding in data.findings:
        uncertain, blank = (flags(table, kind + finding) for kind in (tables.UNCERTAIN, BLANK))
        stated = table[finding][~blank]
        word = data.policy.words[finding] if data.policy else "ignore"
        soft = data.policy.soft if data.policy else ()
        rows.append(
            {
                "finding": finding,
                "present": int((stated == 1).sum()),
                "absent": int((stated == 0).sum()),
                "blank": int(blank.sum()),
                "unknown": int((stated.isna() & ~uncertain).sum()),
                "uncertain": int(uncertain.sum()),
                "policy": word,
                "effect": EFFECTS[word].format(*soft),
            }
        )
    return pd.DataFrame(rows)


def flags(table: pd.DataFrame, column: str) -> pd.Series:
    """Returns a column of yes and no; all no where the table has none of that name."""
    return table[column] if column in table else pd.Series(False, table.index)
