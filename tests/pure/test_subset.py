"""Parts of the images, by their content."""

import numpy as np
import pytest

from dlcv_deploy.calibration.drawn import drawn
from dlcv_deploy.calibration.samples import open_samples
from dlcv_deploy.calibration.subset import Subset, draws, held_out
from dlcv_deploy.errors import SpecError


class Pictures:
    """One-pixel images of given values, in the order given."""

    skipped, source, random = ("lost.png",), "pictures", False

    def __init__(self, *values, labelled=True):
        self.values = values
        self.labels = np.array([value % 10 for value in values]) if labelled else None

    def __len__(self):
        return len(self.values)

    def image(self, i):
        return np.full((1, 1, 3), self.values[i], np.uint8)

    def name(self, i):
        return f"{self.values[i]}.png"

    def digest_of(self, i):
        return f"{self.values[i]:064}"

    def sha256(self):
        return "0" * 64


def values(samples):
    return [int(samples.image(i)[0, 0, 0]) for i in range(len(samples))]


def test_the_two_parts_are_all_and_share_nothing():
    kept, out = held_out(Pictures(*range(100)))
    assert (len(kept), len(out)) == (75, 25)
    assert sorted(values(kept) + values(out)) == list(range(100))
    assert kept.source == "75 of: pictures"
    assert out.source == "25 held out of: pictures"
    assert out.skipped == ("lost.png",)
    assert not out.random


def test_parts_do_not_depend_on_the_order():
    one, other = held_out(Pictures(*range(60))), held_out(Pictures(*reversed(range(60))))
    assert [values(part) for part in one] == [values(part) for part in other]
    assert [part.sha256() for part in one] == [part.sha256() for part in other]
    assert one[0].sha256() != one[1].sha256()


def test_images_stand_in_the_order_of_their_digests():
    """So labels belong to what ``calibrate.first_inputs`` makes of them."""
    pictures = Pictures(*np.random.default_rng(0).permutation(60))
    for part in (*held_out(pictures), *draws(pictures, 2)):
        digests = [part.digest_of(i) for i in range(len(part))]
        assert digests == sorted(digests)


def test_another_seed_splits_otherwise():
    pictures = Pictures(*range(60))
    assert values(held_out(pictures)[1]) != values(held_out(pictures, seed=1)[1])


def test_names_and_labels_go_with_the_images():
    _, out = held_out(Pictures(*range(40)))
    assert [out.name(i) for i in range(len(out))] == [f"{value}.png" for value in values(out)]
    assert out.labels.tolist() == [value % 10 for value in values(out)]
    assert held_out(Pictures(1, 2, labelled=False))[1].labels is None
    assert Subset(Pictures(5, 6), (), "none").labels.tolist() == []


@pytest.mark.parametrize(("share", "count"), [(0.25, 2), (0.01, 1), (0.99, 7), (0.5, 4)])
def test_neither_part_is_ever_empty(share, count):
    kept, out = held_out(Pictures(*range(8)), share)
    assert (len(kept), len(out)) == (8 - count, count)


def test_copies_of_an_image_stay_together():
    pictures = Pictures(*[7] * 30, *range(10, 20))
    for seed in range(5):
        parts = [set(values(part)) for part in held_out(pictures, 0.5, seed=seed)]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == {7, *range(10, 20)}


def test_copies_stand_in_the_order_of_their_names():
    class Twins(Pictures):
        def name(self, i):
            return f"{'ab'[i % 2] if self.values[0] else 'ba'[i % 2]}.png"

        def digest_of(self, i):
            return "5" if i < 2 else "6"

    for values in ((0, 0, 1), (1, 1, 2)):
        for part in held_out(Twins(*values)):
            assert [part.name(i) for i in range(len(part))] in (["a.png", "b.png"], ["b.png"], ["a.png"])


def test_a_digest_is_of_names_content_and_labels():
    pictures, unlabelled = Pictures(1, 2), Pictures(1, 2, labelled=False)
    digests = {Subset(p, i, "x").sha256() for p in (pictures, unlabelled) for i in ((0,), (1,), (0, 1), (1, 0))}
    assert len(digests) == 8
    assert Subset(pictures, (0,), "x").sha256() == Subset(Pictures(1), (0,), "y").sha256()


def test_draws_are_halves_that_differ():
    subsets = draws(Pictures(*range(40)), 5)
    assert [len(subset) for subset in subsets] == [20] * 5
    assert len({tuple(values(subset)) for subset in subsets}) == 5
    assert subsets[1].source == "draw 2 of 5, 20 of: pictures"
    again = draws(Pictures(*reversed(range(40))), 5)
    assert [values(subset) for subset in subsets] == [values(subset) for subset in again]
    assert values(draws(Pictures(*range(40)), 5, seed=1)[0]) != values(subsets[0])
    assert values(draws(Pictures(*range(40)), 2)[0]) == values(subsets[0])  # more of them leave the first as they are


def test_subsets_of_subsets_and_of_sources(tmp_path):
    np.savez(tmp_path / "a.npz", images=drawn_pixels(), labels=np.arange(12))
    samples = open_samples(tmp_path / "a.npz")
    kept, out = held_out(samples)
    (first, _) = draws(kept, 2)
    assert (len(kept), len(out), len(first)) == (9, 3, 4)
    whole = {samples.image(i).tobytes(): i for i in range(12)}
    assert [whole[first.image(i).tobytes()] for i in range(4)] == first.labels.tolist()


def drawn_pixels():
    images = drawn(12, 8)
    return np.stack([images.image(i)[:8, :8] for i in range(12)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: held_out(Pictures(1)), "1 different image cannot be split"),
        (lambda: held_out(Pictures(3, 3, 3)), "1 different image cannot be split"),
        (lambda: held_out(Pictures(1, 2), 0), "cannot hold 0 of the images out"),
        (lambda: held_out(Pictures(1, 2), 1), "cannot hold 1 of the images out"),
        (lambda: held_out(Pictures(1, 2), float("nan")), "cannot hold nan of the images out"),
        (lambda: draws(Pictures(1, 2), 1), "1 subset shows no spread"),
        (lambda: draws(Pictures(1, 2), 3, 1.5), "cannot draw 1.5 of the images"),
        (lambda: draws(Pictures(4, 4), 3), "subsets of 1 different image are all alike"),
    ],
)
def test_what_cannot_be_split(call, message):
    with pytest.raises(SpecError, match=message):
        call()
