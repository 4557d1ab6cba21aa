"""Cuts single knees out of films, with a locator that was trained by `knee_locate`.

    python -m medkeras.serving.crop IN OUT --model RUN
    python -m medkeras.serving.crop IN OUT --model RUN --size 224 --margin 0.1 --mirror-left

    IN    films: PNG or JPEG named <subject>.png (both knees, the patient's right at the left), or
          <subject>R.png, <subject>L.png (one knee); DICOM files; or a folder that
          `python -m medkeras.readers.dicom` wrote
    OUT/<subject>R.png, <subject>L.png    one picture a knee, grey, 8 bit
    OUT/crops.csv                         film, side, box in pixels of the film (of its half where
                                          an import cut it), confidence, file, mirrored
    OUT/not_cropped.csv                   film, side, confidence, reason, remedy

The subject of a DICOM file is the keyed hash of the patient's id, as in an import. No joint is
guessed: where the confidence lies below the threshold of the run, where the side is unknown or a
file cannot be read, the film is listed. With `--names oai` a picture is named <subject>_1.png
(right) or <subject>_2.png (left), as beside a table of the OAI.

Nothing is written into IN; OUT is filled when all is done. Exit code 0, or 3 where a knee was not
cropped, 2 for arguments that cannot be used.
"""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from rich.console import Console

from medkeras import commands
from medkeras.errors import DataError, MedkerasError, Problem, ResourceError, UsageError
from medkeras.files import atomic
from medkeras.files.foreign import printable
from medkeras.files.places import key_file
from medkeras.preparation import halves
from medkeras.progress import bar
from medkeras.readers import dicom_write, listing
from medkeras.serving import sources

CHUNK = 8  # films decoded before the model is asked
SHOWN = 60
LEAST_INSIDE = 0.9  # of a box, on the film
NAMES = {"letter": {"right": "R", "left": "L"}, "oai": {"right": "_1", "left": "_2"}}
CROPS = (
    *("film", "side", "x", "y", "width", "height"),
    *("confidence", "file", "mirrored"),
)
LISTED = ("film", "side", "confidence", "reason", "remedy")


@dataclass
class Cropped:
    """What became of the films.

    Args:
        crops: the table in `crops.csv`.
        listed: that in `not_cropped.csv`.
        names: the same rows' files by name; those of DICOM files may hold a patient's, so
            `listed` has keyed hashes instead.
    """

    crops: pd.DataFrame
    listed: pd.DataFrame
    names: list[str]


def crop(source, out, run, *, size=224, margin=0.0, mirror_left=False, names="letter") -> Cropped:
    """Cuts single knees out of a folder of films.

    Args:
        source: the folder, see above.
        out: folder to write; empty or absent, and apart from `source`.
        run: folder of a run of `knee_locate`.
        size: height and width of the pictures in pixels.
        margin: share of the box's longer side that is added on each side, 0 or more. 0 shows what
            the locator's boxes show.
        mirror_left: mirror left knees, so that the medial side is always at the right.
        names: "letter" or "oai".

    Returns:
        What became of every film.

    Raises:
        UsageError: folders, run or numbers that cannot be used.
        ResourceError: the disk is full or not writable.
    """
    source, out = Path(source), Path(out).resolve()
    _refuse(source, out, size, margin)
    locate = _locator(run)
    options = {"size": size, "margin": margin, "mirror_left": mirror_left, "names": NAMES[names]}
    try:
        with (
            tempfile.TemporaryDirectory() as work,
            dicom_write.complete(out, lambda: True) as folder,
        ):
            with bar("reading DICOM") as progress:
                films, problems, hashes = sources.found(source.resolve(), Path(work), progress)
            if not films and not problems:
                problems = [Problem(source.name, "holds no films", "name a folder of PNG or DICOM")]
            rows, listed = [], [("", None, problem) for problem in problems]
            with bar("cropping") as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                for start in range(0, len(films), CHUNK):
                    knees = []
                    for parts, problem in pool.map(sources.opened, films[start : start + CHUNK]):
                        knees += parts
                        listed += [("", None, problem)] if problem else []
                    _cut(knees, locate, folder, rows, listed, options)
                    progress(min(start + CHUNK, len(films)), len(films))
            done = _tables(rows, listed, hashes)
            atomic.write_csv(folder / "crops.csv", done.crops)
            atomic.write_csv(folder / "not_cropped.csv", done.listed)
    except OSError as fault:
        raise ResourceError(f"{out}: cannot be written ({fault.strerror or fault})") from fault
    return done


def main(argv=None) -> int:
    """Runs the command; returns its exit code: 0, 2 (usage), 3 (not all cropped), 4, 130."""
    parser = commands.parser("python -m medkeras.serving.crop", __doc__)
    add = parser.add_argument
    add("source", metavar="IN", help="folder of films")
    add("out", metavar="OUT", help="folder to write, empty or absent")
    add("--model", required=True, metavar="RUN", help="folder of a run of knee_locate")
    add("--size", type=int, default=224, metavar="N", help="of the pictures, pixels (default 224)")
    add("--margin", type=float, default=0.0, metavar="SHARE", help="of the box, all round")
    add("--mirror-left", action="store_true", help="medial side always at the right")
    add("--names", choices=NAMES, default="letter", help="letter: 9001695R; oai: 9001695_1")
    flags = parser.parse_args(argv)
    new = not key_file().exists()
    try:
        options = {"size": flags.size, "margin": flags.margin, "names": flags.names}
        options["mirror_left"] = flags.mirror_left
        done = crop(flags.source, flags.out, flags.model, **options)
    except MedkerasError as fault:
        print(f"crop: {fault}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        return 130
    _say(done, flags.out)
    if new and key_file().exists():
        print(f"The new key of the patients' ids is {key_file()}: keep it to yourself.")
    return DataError.exit_code if len(done.listed) else 0


def _refuse(source, out, size, margin):
    if not source.is_dir():
        raise UsageError(f"{source}: is not a folder of films")
    inner = source.resolve()
    if out.is_relative_to(inner) or inner.is_relative_to(out):
        raise UsageError(f"{out}: lies in {source} or around it; name a folder apart from it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: exists and is not empty; nothing was overwritten")
    if size < 16:
        raise UsageError(f"--size {size}: expected 16 or more")
    if not 0 <= margin <= 0.5:
        raise UsageError(f"--margin {margin}: expected 0 to 0.5")


def _locator(run):
    """Loads a locator: a function of pictures, its image shape and its threshold."""
    from keras import ops

    from medkeras.models import stored

    model, predictor = stored.load(run)
    if predictor.get("task") != "location":
        raise UsageError(f"run {run}: is no locator; name a run of experiments/knee_locate.py")
    trained = {name: predictor["preprocessing"].get(name) for name in halves.CONFIG}
    if trained != halves.CONFIG:
        raise UsageError(f"run {run}: saw films prepared in another way than today; train it again")
    threshold = predictor["thresholds"]["confidence"]
    if threshold is None:
        raise UsageError(
            f"run {run}: found no joint of its validation part, so it has no threshold of "
            "confidence; train it longer, or on more films"
        )

    def answers(pictures):
        return ops.convert_to_numpy(model(pictures.astype(np.float32), training=False))

    return answers, tuple(predictor["image_shape"]), threshold


def _cut(knees, locate, folder, rows, listed, options):
    """Locates the joints of some knees and writes each picture, or lists why there is none."""
    if not knees:
        return
    answers, shape, threshold = locate
    found = answers(np.stack([half.picture(pixels, shape) for _, pixels, half in knees]))
    for (film, pixels, half), answer in zip(knees, found, strict=True):
        box, confidence = half.place(answer[:4]), round(float(answer[4]), 6)
        name = f"{film.subject}{options['names'][half.side]}.png"
        problem = None
        # Not a number is not confident either.
        if not confidence >= threshold:
            problem = (
                f"no confident joint ({confidence:.3f}, expected {threshold:.3f} or more)",
                "look at it: bones bright, upright, frontal, both joints on it? crop it by hand",
            )
        elif half.inside(box) < LEAST_INSIDE:
            problem = "the joint reaches beyond the picture", "crop it by hand"
        elif (folder / name).exists():
            problem = (
                f"is another film of the knee in {name}",
                "put the films of each visit into a folder of its own",
            )
        if problem:
            listed.append((half.side, confidence, Problem(film.name, *problem)))
            continue
        mirrored = options["mirror_left"] and half.side == "left"
        picture = half.joint(pixels, box, options["size"], options["margin"])
        with atomic.writing(folder / name) as temporary:
            Image.fromarray(picture[:, ::-1] if mirrored else picture).save(temporary, "PNG")
        place = [round(number, 2) for number in box]
        rows.append((film.name, half.side, *place, confidence, name, mirrored))


def _tables(rows, listed, hashes):
    listed = sorted(listed, key=lambda one: (listing.natural(one[2].path), one[0]))
    table = [
        (hashes.get(problem.path, problem.path), side, confidence, problem.reason, problem.remedy)
        for side, confidence, problem in listed
    ]
    return Cropped(
        pd.DataFrame(rows, columns=list(CROPS)),
        pd.DataFrame(table, columns=list(LISTED)),
        [problem.path for _, _, problem in listed],
    )


def _say(done, out):
    console = Console(soft_wrap=True, highlight=False, markup=False)
    # A log that is passed on must not name patients.
    names = done.names if console.is_terminal else done.listed["film"]
    rows = zip(names, done.listed.itertuples(), strict=True)
    for name, row in list(rows)[:SHOWN]:
        said = printable(f"{name} {row.side}".strip())
        console.print(f"  {said} | {row.reason} | {row.remedy}")
    if len(done.listed) > SHOWN:
        console.print(f"  ... and {len(done.listed) - SHOWN} more")
    pictures, left = done.crops["film"].nunique(), len(done.listed)
    console.print(f"{len(done.crops)} knees of {pictures} pictures cropped")
    if left:
        console.print(f"{left} not cropped, see not_cropped.csv")
    console.print(printable(str(out)))


if __name__ == "__main__":
    sys.exit(main())
