"""Recognises which reader a data folder needs by what lies in it.

Looked for in this order, in the folder itself and, but for `bone`, in the only folder of the
kind inside it:

    mrnet       train-acl.csv and the like, or train/axial, valid/sagittal, ...
    chexpert    train.csv or valid.csv with the columns Path and Frontal/Lateral
    nih         Data_Entry_2017.csv, or another whose name begins so
    knee        JSL.csv, or folders named 0 to 4 with pictures like 9001695L.png
    bone        dataset.csv and images, XR_* folders, images.csv of an import, or any two folders
                with pictures

Only names and headers are read, and of large folders only the beginning. Folders named like
patients or studies are no classes. Where nothing fits, the folders above are looked at too: a
part of a data set is told the whole one.
"""

import itertools
import os
from pathlib import Path

from medkeras.errors import DataError, Problem
from medkeras.readers import bone, chexpert, folders, imported, knee, listing, mrnet, nih

READERS = {
    "bone": bone.read,
    "mrnet": mrnet.read,
    "chexpert": chexpert.read,
    "nih": nih.read,
    "knee": knee.read,
}
FITS = {"mrnet": mrnet.fits, "chexpert": chexpert.fits, "nih": nih.fits, "knee": knee.fits}
NEEDS = {
    "bone": "two or more folders of PNG or JPEG files, one per class; or FracAtlas or MURA",
    "mrnet": "train/axial, train/coronal and train/sagittal with NNNN.npy, and train-acl.csv, "
    "train-abnormal.csv and train-meniscus.csv; the same for valid",
    "chexpert": "train.csv with the columns Path, Frontal/Lateral and the 14 findings, and train",
    "nih": "Data_Entry_2017.csv, and PNG files of its names anywhere below",
    "knee": "folders 0 to 4 with pictures like 9001695L.png; or JSL.csv and complete_images",
}
# Enough to know a kind of folder by; a large one is not walked for it.
LOOKED_AT = 2000
# A folder of one study lies so deep in CheXpert and MURA.
DEEPEST = 3


def recognised(root) -> str:
    """Finds the reader for a data folder.

    Args:
        root: the data folder.

    Returns:
        A key of `READERS`.

    Raises:
        DataError: there is no such folder, or no reader knows what lies in it; then it says
            what each of them would need, and how DICOM files are brought into such a layout.
    """
    for name, fits in FITS.items():
        if fits(folders.start(root, fits)):
            return name
    root = Path(root).resolve()
    if _bones(root):
        return "bone"
    if _has_dicom(root):
        remedy = "convert them first: python -m medkeras.readers.dicom IN OUT, then name OUT"
        raise DataError([Problem(str(root), "holds DICOM files, which no reader takes", remedy)])
    inner = [folder for folder in folders.inside(root) if _bones(folder)]
    remedy = "see data/README.md for the layouts"
    if len(inner) == 1:
        remedy = f"name the folder that holds the classes: --data {inner[0]}"
    elif above := _above(root):
        remedy = f"name the folder above: --data {above}"
    raise DataError(
        [
            Problem(str(root), "is in no layout that a reader knows", remedy),
            *(Problem(f"reader {name}", f"needs {what}", "") for name, what in NEEDS.items()),
        ]
    )


def _above(root):
    """Finds the data set that a folder is a piece of: not its part `train`, but the whole."""
    for above in root.parents[:DEEPEST]:
        whole = above.name.lower() not in bone.PARTS
        # Any two folders with pictures may lie up there, so class folders are not looked for.
        if whole and (_published(above) or any(fits(above) for fits in FITS.values())):
            return above
    return None


def _published(root):
    if (root / "dataset.csv").is_file() and (root / "images").is_dir():
        return True
    return imported.fits(root) or any(True for _ in root.glob("train/XR_*"))


def _bones(root):
    if _published(root):
        return True
    tops = folders.inside(root)
    parts = [folder for folder in tops if folder.name.lower() in bone.PARTS]
    names = set()
    for folder in tops:
        if folder.name == "masks":
            continue
        inner = folders.inside(folder) if folder in parts else [folder]
        classes = [entry for entry in inner if not bone.PERSON.fullmatch(entry.name)]
        names |= {entry.name for entry in classes if _has_pictures(entry)}
    return len(names) > 1 or any(name.startswith("XR_") for name in names)


def _has_pictures(folder):
    endings = listing.PICTURES - {".dcm"}
    return any(Path(name).suffix.lower() in endings for _, name in _beginning(folder))


def _has_dicom(root):
    for folder, name in _beginning(root):
        if name == "DICOMDIR" or name.lower().endswith((".dcm", ".dicom", ".ima")):
            return True
        # Scanners write files without an ending; the standard puts its mark at byte 128.
        path = Path(folder, name)
        if ("." not in name or name.rpartition(".")[2].isdecimal()) and path.is_file():
            try:
                with open(path, "rb") as file:
                    if file.read(132)[128:] == b"DICM":
                        return True
            except OSError:
                continue
    return False


def _beginning(root):
    walk = os.walk(root)
    found = (
        (folder, name)
        for folder, _, names in walk
        for name in sorted(names)
        if not listing.hidden(name)
    )
    return itertools.islice(found, LOOKED_AT)
