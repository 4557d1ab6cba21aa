import numpy as np
import pytest

from medkeras.readers import dicom_knees, dicom_series
from tests.files import dicoms


def fact(height, instance, way=dicoms.SAGITTAL, **tags):
    """Makes the facts of a slice `height` mm along the normal."""
    given = {"photometric": "MONOCHROME2", "instance": instance, "pixel_spacing": [0.5, 0.5]}
    given |= {"echo_time": None, "slice_thickness": None} | tags
    position = np.cross(way[:3], way[3:]) * height
    return {"shape": [1, 8, 8], "places": [[*position.tolist(), *way]], "tags": given}


def found(facts):
    made, refused = dicom_series.volumes(facts)
    assert not refused
    return [volume.slices for volume in made]


# Volumes


def test_echoes_are_told_apart_by_echo_time_whatever_their_numbers():
    # The machine counts the echoes of the second place the other way round.
    instances, echoes = (1, 2, 4, 3, 5, 6), (10, 80) * 3
    facts = [fact(n // 2, instances[n], echo_time=echoes[n]) for n in range(6)]
    assert found(facts) == [[0, 2, 4], [1, 3, 5]]
    assert "echo times" in dicom_series.volumes(facts)[0][0].notes[0]


@pytest.mark.parametrize("thickness", [None, 3])
@pytest.mark.parametrize("apart", [0, 0.02, 0.09])
def test_slices_a_little_apart_lie_at_the_same_place(apart, thickness):
    facts = [fact(3 * (n // 2) + apart * (n % 2), n, slice_thickness=thickness) for n in range(8)]
    assert found(facts) == [[0, 2, 4, 6], [1, 3, 5, 7]]


@pytest.mark.parametrize(
    ("heights", "thickness"),
    [
        ([0, 0.4, 0.8, 1.2], 5),  # overlapping
        ([0, 0.05, 0.1, 0.15], 0.05),  # under a microscope
        ([0, 1, 29, 30], None),  # with a large gap
    ],
)
def test_neighbours_lie_at_different_places(heights, thickness):
    facts = [fact(height, n, slice_thickness=thickness) for n, height in enumerate(heights)]
    assert found(facts) == [[0, 1, 2, 3]]


def test_another_pixel_spacing_is_another_volume():
    spacings = ([0.5, 0.5], [0.5, 0.6], None)
    facts = [fact(n, n, pixel_spacing=spacings[n // 2]) for n in range(6)]
    assert found(facts) == [[0, 1], [2, 3], [4, 5]]


def test_rounded_values_are_no_other_ones():
    facts = [fact(n, n, echo_time=10 + n / 100, pixel_spacing=[0.5, 0.5 + n / 1e4]) for n in (0, 1)]
    assert found(facts) == [[0, 1]]


def test_frames_a_little_apart_keep_the_order_of_the_file():
    heights = [3, 0, 3.02, 0.02]
    volume = dicom_series.frames([fact(height, 1)["places"][0] for height in heights])
    assert volume.slices == [0, 1, 2, 3] and "same place" in volume.notes[0]


# Both knees on one film


def knee(**tags):
    return {"body_part": "KNEE", "side": "", "view": "", "orientation": "\\"} | tags


@pytest.mark.parametrize(
    ("tags", "cut"),
    [
        ({"view": "AP"}, True),
        ({"view": "PA", "orientation": "R\\F"}, True),
        ({"orientation": "L\\F"}, True),
        ({"side": "B"}, True),
        ({}, False),  # a lateral knee may be as wide
        ({"orientation": ""}, False),
        ({"orientation": "A\\F"}, False),
        ({"orientation": "A\\F", "view": "AP"}, False),
        ({"orientation": "A\\F", "side": "B"}, False),
        ({"orientation": "F\\R", "side": "B"}, False),
        ({"orientation": "L\\F", "view": "LATERAL"}, False),
        ({"side": "R", "view": "AP"}, False),
        ({"side": "B", "body_part": ""}, False),
    ],
)
def test_only_frontal_films_are_cut_by_their_width(tags, cut):
    assert dicom_knees.both(knee(**tags), (60, 80)) == cut


def test_what_leads_elsewhere_is_not_even_split():
    assert dicom_knees.both(knee(), (60, 60), "split")
    assert not dicom_knees.both(knee(orientation="P\\F"), (60, 60), "split")


@pytest.mark.parametrize(
    ("tags", "shape", "said"),
    [
        ({"side": "B"}, (60, 60), "both sides"),
        ({"side": "B", "body_part": "HAND"}, (60, 60), "both sides"),
        ({}, (60, 80), "wide enough"),
        ({}, (60, 60), "without side"),
        ({"side": "R"}, (60, 80), ""),
        ({"body_part": "CHEST"}, (60, 80), ""),
    ],
)
def test_what_is_left_whole_says_so(tags, shape, said):
    notes = dicom_knees.uncut(knee(**tags), shape)
    assert bool(notes) == bool(said) and said in "".join(notes)


@pytest.mark.parametrize(("orientation", "right"), [("R\\F", 9), ("L\\F", 1), ("", 1)])
def test_the_rows_say_which_half_is_right(orientation, right):
    grey = np.repeat([[1] * 20 + [0] * 5 + [9] * 20], 10, axis=0).astype(np.uint8)
    assert dicom_knees.halves(grey, orientation)[0]["R"].max() == right
