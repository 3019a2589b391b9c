"""What a phantom shows is what it says, on every machine."""

import numpy as np
import pytest

from medreward.lab.phantoms.draw import FAMILIES, HELD_OUT_FAMILIES, NORMAL, REGIONS, draw, imagine, without_findings
from medreward.lab.phantoms.golden import golden_images
from medreward.lab.phantoms.scenes import SCENES

pytestmark = pytest.mark.slow


def test_the_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    first = draw(3)
    assert np.array_equal(first.pixels, draw(3).pixels)
    assert not np.array_equal(first.pixels, draw(4, first.region).pixels)


def test_there_are_thirteen_regions_and_every_one_is_drawn() -> None:
    assert len(REGIONS) == 13
    assert {scene.region for scene in SCENES} == set(REGIONS)
    for region in REGIONS:
        phantom = draw(1, region)
        assert phantom.region == region
        assert phantom.pixels.shape == (256, 256, 3)
        assert phantom.pixels.std() > 10


def test_every_family_is_found_in_several_regions_and_some_are_held_out() -> None:
    for family in FAMILIES:
        assert len({s.region for s in SCENES if any(p.kind.family == family for p in s.plans)}) >= 2, family
    assert set(HELD_OUT_FAMILIES) < set(FAMILIES)
    assert imagine(5, "brain", "cyst").held_out
    assert not imagine(5, "brain", "bleeding").held_out


def test_a_named_family_is_shown_and_normal_shows_none() -> None:
    assert {finding.family for finding in imagine(2, None, "fracture").findings} == {"fracture"}
    assert imagine(2, "eye", NORMAL).findings == ()
    with pytest.raises(ValueError, match="fracture"):
        imagine(2, "eye", "fracture")


@pytest.mark.parametrize("number", range(len(SCENES)))
def test_every_finding_is_seen_at_its_place(number: int) -> None:
    for plan in SCENES[number].plans:
        seeds = (seed for seed in range(10_000) if _shows(seed, number, plan.kind.name, plan.kind.family))
        phantom = draw(next(seeds), SCENES[number].region, plan.kind.family)
        healthy = without_findings(phantom).pixels.astype(int)
        difference = np.abs(phantom.pixels.astype(int) - healthy).max(2)
        assert difference.max() > 25, plan.kind.name
        if plan.look is None:
            continue  # the anatomy itself changes
        for finding in phantom.findings:
            for x, y in finding.centres:
                assert _around(difference, x, y, max(finding.size, 0.03)).max() > 25, plan.kind.name


def _shows(seed: int, number: int, kind: str, family: str) -> bool:
    phantom = imagine(seed, SCENES[number].region, family)
    return phantom.scene == number and phantom.findings[0].kind == kind


def _around(picture: np.ndarray, x: float, y: float, reach: float) -> np.ndarray:
    size, half = len(picture), reach / 2
    rows = slice(max(0, int((y - half) * size)), int((y + half) * size) + 1)
    return picture[rows, max(0, int((x - half) * size)) : int((x + half) * size) + 1]


def test_the_patients_right_is_on_the_left_of_the_picture() -> None:
    for seed in range(200):
        for finding in imagine(seed, "chest").findings:
            if finding.side:
                assert (finding.centre[0] < 0.5) is (finding.side == "right")


def test_sizes_leave_gaps_between_the_words() -> None:
    radii: dict[tuple[str, str], list[float]] = {}
    for seed in range(1500):
        for finding in imagine(seed, "brain").findings:
            if finding.size_word and finding.kind == "tumour":
                radii.setdefault((finding.kind, finding.size_word), []).append(finding.size)
    assert max(radii["tumour", "small"]) < 0.95 * min(radii["tumour", "medium"])
    assert max(radii["tumour", "medium"]) < 0.95 * min(radii["tumour", "large"])


def test_golden_images_come_with_answers_of_each_quality() -> None:
    golden = golden_images(13)
    assert [image.name for image in golden] == [image.name for image in golden_images(13)]
    assert all(image.png.startswith(b"\x89PNG") and len(image.answers) == 3 for image in golden)
