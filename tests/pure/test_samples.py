"""Images come out as they went in, chosen alike everywhere; what cannot be read or trusted is named."""

import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlcv_deploy.calibration import labels
from dlcv_deploy.calibration.samples import contents, drawn, noise, open_samples
from dlcv_deploy.errors import ArtifactError, SpecError
from dlcv_deploy.sources import first

RNG = np.random.default_rng(0)


def picture(height=6, width=9):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def save(path, pixels=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture() if pixels is None else pixels
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Four images, one of them deeper, and things that are no images."""
    path = tmp_path / "photos"
    for name in ("b.png", "a.PNG", "deep/er/c.bmp", "d.ppm"):
        save(path / name)
    save(path / ".hidden.png")
    save(path / ".git" / "e.png")
    (path / "README.txt").write_text("no image")
    return path


# a folder


def test_a_folder_gives_its_images_in_order_of_their_names(folder):
    samples = open_samples(folder)
    assert [samples.name(i) for i in range(len(samples))] == ["a.PNG", "b.png", "d.ppm", "deep/er/c.bmp"]
    assert samples.labels is None
    assert samples.skipped == ()
    assert not samples.random
    assert samples.source == "4 images of the folder photos"
    for i in range(4):
        expected = np.asarray(Image.open(folder / samples.name(i)))
        assert np.array_equal(samples.image(i), expected)
        assert samples.image(i).dtype == np.uint8


def test_a_count_chooses_by_seed_and_a_larger_one_adds_to_it(folder):
    for i in range(30):
        save(folder / f"{i}.png")

    def names(**options):
        samples = open_samples(folder, **options)
        return [samples.name(i) for i in range(len(samples))]

    assert names(count=10) == names(count=20)[:10] == names(count=10)
    assert len(set(names(count=10))) == 10
    assert names(count=10) != names(count=10, seed=1)
    assert names(count=10) != sorted(names())[:10]
    assert sorted(names(count=34)) == names()
    assert open_samples(folder, count=10).source == "10 of 34 images of the folder photos"


def test_the_choice_is_the_same_on_every_machine(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((100, 2, 2, 3), np.uint8))
    samples = open_samples(tmp_path / "x.npz", count=5)
    assert [samples.name(i) for i in range(5)] == ["images[36]", "images[72]", "images[29]", "images[46]", "images[34]"]


CHOSEN = []


def test_fewer_images_than_asked_for_are_all_taken_and_the_source_says_so(folder):
    samples = open_samples(folder, count=512)
    assert len(samples) == 4
    assert samples.source == "all 4 images of the folder photos (512 were asked for)"


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused(folder, count):
    with pytest.raises(SpecError, match=f"cannot take {count} images"):
        open_samples(folder, count=count)


def test_the_digest_follows_names_contents_and_labels(folder):
    save(folder / "0.png", pixels := picture())
    first = open_samples(folder).sha256()
    assert open_samples(folder).sha256() == first
    (folder / "0.png").rename(folder / "1.png")
    renamed = open_samples(folder).sha256()
    save(folder / "1.png", 255 - pixels)
    altered = open_samples(folder).sha256()
    write_labels(folder / "labels.csv", dict.fromkeys(open_images(folder), 0))
    labelled = open_samples(folder).sha256()
    assert len({first, renamed, altered, labelled, open_samples(folder, count=2).sha256()}) == 5


def test_an_image_has_a_digest_of_its_own_whatever_its_name_and_label(folder, tmp_path):
    save(folder / "0.png", pixels := picture())
    alone = open_samples(folder).digest_of(0)
    (folder / "0.png").rename(folder / "z.png")
    write_labels(folder / "labels.csv", dict.fromkeys(open_images(folder), 0))
    samples = open_samples(folder)
    assert samples.name(4) == "z.png"
    assert samples.digest_of(4) == alone
    assert len({samples.digest_of(i) for i in range(5)}) == 5
    stack = np.stack([pixels, 255 - pixels])
    there, back = (open_samples(npz(tmp_path / f"{n}.npz", images=x)) for n, x in (("a", stack), ("b", stack[::-1])))
    assert [there.digest_of(0), there.digest_of(1)] == [back.digest_of(1), back.digest_of(0)]
    assert there.sha256() != back.sha256()
    assert contents(there) == contents(back) != contents(open_samples(tmp_path / "a.npz", count=1))
    assert drawn(2, 8).digest_of(1) == drawn(5, 8).digest_of(1) != drawn(5, 8).digest_of(2)
    assert contents(first(drawn(5, 8), 2)) == contents(drawn(2, 8))


def test_a_folder_may_be_named_with_a_home_and_as_text(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(open_samples("~/photos")) == 4
    monkeypatch.chdir(folder)
    assert open_samples(".").source == "4 images of the folder photos"


def test_nothing_to_read_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(SpecError, match="no images in empty") as e:
        open_samples(tmp_path / "empty")
    assert ".webp" in e.value.fix
    with pytest.raises(SpecError, match=r"there is no .*nowhere"):
        open_samples(tmp_path / "nowhere")
    with pytest.raises(SpecError, match=r"x\.png is neither a folder"):
        open_samples(tmp_path / "x.png")


# what becomes of an image


def only(path):
    return open_samples(path.parent).image(0)


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = picture()[..., 0]
    save(tmp_path / "x.png", gray)
    assert np.array_equal(only(tmp_path / "x.png"), np.stack([gray] * 3, 2))


def test_sixteen_bits_become_eight_by_their_upper_half(tmp_path):
    deep = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    save(tmp_path / "x.png", deep)
    assert only(tmp_path / "x.png")[..., 0].tolist() == [[0, 0, 1, 0x12, 255]]


def test_one_bit_becomes_black_and_white(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "x.png")
    assert np.array_equal(only(tmp_path / "x.png")[..., 1], np.eye(8) * 255)


@pytest.mark.parametrize("transparency", [None, 0, bytes(range(4))])
def test_a_palette_is_looked_up_and_its_transparency_dropped(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    image.save(tmp_path / "x.png", **({} if transparency is None else {"transparency": transparency}))
    assert only(tmp_path / "x.png").reshape(4, 3).tolist() == [
        [10, 20, 30],
        [40, 50, 60],
        [70, 80, 90],
        [100, 110, 120],
    ]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_alpha_is_dropped(tmp_path, suffix):
    rgba = np.dstack([picture(), np.full((6, 9), 200, np.uint8)])
    save(tmp_path / f"x.{suffix}", rgba, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
    assert np.array_equal(only(tmp_path / f"x.{suffix}"), rgba[..., :3])


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)
    red = only(tmp_path / "x.jpg").reshape(-1, 3).mean(0)
    assert red == pytest.approx([255, 0, 0], abs=3)


def turned(path, orientation, pixels=None):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(path, pixels, exif=exif)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_an_orientation_is_ignored_and_counted(tmp_path, suffix):
    for orientation in range(10):
        turned(
            tmp_path / f"{orientation}.{suffix}",
            orientation,
            np.dstack([np.arange(54, dtype=np.uint8).reshape(6, 9)] * 3),
        )
    save(tmp_path / f"none.{suffix}")
    for skip_bad in (False, True):
        samples = open_samples(tmp_path, skip_bad=skip_bad)
        assert samples.rotated == 7  # 2 to 8; 1 is upright, 0 and 9 mean nothing
        assert [samples.turned(i) for i in range(11)] == [False, False] + [True] * 7 + [False] * 2
        assert len({samples.image(i).tobytes() for i in range(10)}) == 1
        assert samples.image(6).shape == (6, 9, 3)
    some = first(samples, 4)
    assert (some.rotated, some.turned(1), some.turned(3)) == (2, False, True)
    assert 0 < open_samples(tmp_path, count=6).rotated < 7
    assert (
        drawn(2, 8).rotated == noise(2, 8).rotated == open_samples(npz(tmp_path / "x.npz", images=IMAGES)).rotated == 0
    )


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), (200 * (i == 0), 0, 200 * (i > 0))) for i in range(3)]
    for name in ("a.png", "a.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=40, **options)
    samples = open_samples(tmp_path)
    for i in range(2):
        with Image.open(tmp_path / samples.name(i)) as file:
            assert file.n_frames > 1
        assert (samples.image(i) == [200, 0, 0]).all()


def test_names_may_be_links_differ_by_case_and_need_not_be_ascii(tmp_path):
    pictures = {name: save(tmp_path / name) for name in ("a.png", "A.png", "a.PNG", "čaj 茶.png")}
    save(tmp_path.parent / "elsewhere.png", pictures["a.png"])
    (tmp_path / "link.png").symlink_to(tmp_path.parent / "elsewhere.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    samples = open_samples(tmp_path)
    assert (
        [samples.name(i) for i in range(5)]
        == ["A.png", "a.PNG", "a.png", "link.png", "čaj 茶.png"]
        == open_images(tmp_path)
    )
    assert all(np.array_equal(samples.image(i), pictures[samples.name(i)]) for i in (0, 1, 2, 4))
    assert samples.digest_of(2) == samples.digest_of(3)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(ArtifactError, match=r"image gone\.png cannot be read: No such file"):
        open_samples(tmp_path)
    assert open_samples(tmp_path, skip_bad=True).skipped == ("gone.png",)


def test_a_name_that_no_report_could_say_is_refused(tmp_path):
    save(tmp_path / "a.png")
    try:
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with pytest.raises(ArtifactError, match=r"name of the image '\\udcff\.png' is not UTF-8"):
        open_samples(tmp_path)


def test_one_image_is_enough(tmp_path):
    save(tmp_path / "a.png")
    assert (len(open_samples(tmp_path)), open_samples(tmp_path).source) == (
        1,
        "1 images of the folder " + tmp_path.name,
    )


def test_a_folder_of_other_files_only_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "movie.gif").write_bytes(b"GIF89a")
    with pytest.raises(SpecError, match="no images in"):
        open_samples(tmp_path)


def test_an_image_of_absurd_size_is_refused_by_its_header(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(ArtifactError, match=r"image bomb\.png cannot be read: Image size \(3600000000 pixels\)"):
        open_samples(tmp_path)


# damage


def test_a_file_that_is_no_image_is_named_at_once(folder):
    (folder / "deep" / "z.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(ArtifactError, match=r"image deep/z\.jpg cannot be read") as e:
        open_samples(folder)
    assert "--skip-bad" in e.value.fix
    assert str(folder) not in str(e.value)


def test_an_image_that_is_cut_off_is_named_when_it_is_read(folder):
    path = folder / "b.png"
    path.write_bytes(path.read_bytes()[:-30])
    samples = open_samples(folder)
    assert np.any(samples.image(0))
    with pytest.raises(ArtifactError, match=r"image b\.png cannot be read"):
        samples.image(1)


def test_a_file_that_goes_away_is_named(folder):
    samples = open_samples(folder)
    (folder / "b.png").unlink()
    with pytest.raises(ArtifactError, match=r"image b\.png cannot be read: No such file"):
        samples.image(1)
    with pytest.raises(ArtifactError, match=r"image b\.png cannot be read: No such file"):
        samples.sha256()


def test_bad_images_are_skipped_where_asked_and_others_take_their_place(folder):
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:-30])
    (folder / "0.jpg").write_bytes(b"")
    samples = open_samples(folder, skip_bad=True)
    assert samples.skipped == ("0.jpg", "b.png")
    assert [samples.name(i) for i in range(len(samples))] == ["a.PNG", "d.ppm", "deep/er/c.bmp"]
    assert samples.source == "3 of 5 images of the folder photos, 2 skipped as unreadable"
    assert len(open_samples(folder, skip_bad=True, count=3)) == 3
    seen = []
    open_samples(folder, skip_bad=True, count=2, progress=lambda what, total: Bar(seen, total))
    assert seen == [2, 1, 1]


class Bar:
    def __init__(self, seen, total):
        self.seen = seen
        seen.append(total)

    def __enter__(self):
        return self.seen.append

    def __exit__(self, *error):
        return None


def test_labels_stay_with_their_images_when_some_are_skipped(folder):
    names = open_images(folder)
    write_labels(folder / "labels.csv", {name: i for i, name in enumerate(names)})
    (folder / names[1]).write_bytes(b"")
    samples = open_samples(folder, skip_bad=True, count=3)
    assert [names[label] for label in samples.labels] == [samples.name(i) for i in range(3)]


def test_a_folder_of_bad_images_only_is_refused(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ArtifactError, match="none of the 1 images"):
        open_samples(tmp_path, skip_bad=True)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "ppm"])
def test_whatever_is_damaged_in_a_file_gives_pixels_or_one_clear_error(tmp_path, suffix):
    path = tmp_path / "deep" / f"x.{suffix}"
    save(path, picture(40, 40))
    whole = path.read_bytes()
    rng = np.random.default_rng(7)
    for _ in range(120):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for at in rng.integers(0, len(data), rng.integers(0, 6)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                shape, words = open_samples(tmp_path).image(0).shape, ""
            except ArtifactError as e:
                shape, words = (0, 0, 3), str(e)
        assert words == "" or f"deep/x.{suffix}" in words
        assert str(tmp_path) not in words
        assert len(shape) == 3
        assert shape[2] == 3


# labels


def open_images(folder):
    samples = open_samples(folder)
    return [samples.name(i) for i in range(len(samples))]


def write_labels(path, rows, header="file,label"):
    path.write_text("\n".join([header, *(f"{name},{label}" for name, label in rows.items())]) + "\n")


@pytest.mark.parametrize("beside", [False, True])
def test_a_csv_labels_the_images_in_or_beside_their_folder(folder, beside):
    names = open_images(folder)
    prefix, where = ("photos/", folder.parent) if beside else ("", folder)
    rows = {prefix + name: 10 * i for i, name in enumerate(names)}
    write_labels(where / "labels.csv", {k: f"{v},CC BY" for k, v in reversed(rows.items())}, "file,label,license")
    samples = open_samples(folder)
    assert samples.labels.dtype == np.int64
    assert samples.labels.tolist() == [0, 10, 20, 30]
    some = open_samples(folder, count=3)
    assert some.labels.tolist() == [10 * names.index(some.name(i)) for i in range(3)]


def test_a_csv_may_label_more_than_this_folder(folder):
    save(folder.parent / "other" / "x.png")
    rows = {f"photos/{name}": 1 for name in open_images(folder)}
    write_labels(folder.parent / "labels.csv", {**rows, "other/x.png": 2})
    assert open_samples(folder).labels.tolist() == [1] * 4
    assert open_samples(folder.parent).labels.tolist() == [2, 1, 1, 1, 1]


def test_a_csv_beside_the_folder_that_is_of_others_is_passed_over(folder):
    save(folder.parent / "other" / "x.png")
    write_labels(folder.parent / "labels.csv", {"other/x.png": 2})
    assert open_samples(folder).labels is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,class\na.PNG,1\n", "no columns file and label"),
        ("", "no columns file and label"),
        ("file,label\na.PNG,1\n", "no label for b.png"),
        ("file,label\na.PNG,cat\n", "line 2: label 'cat' of a.PNG is no class index"),
        ("file,label\na.PNG,-1\n", "label '-1'"),
        ("file,label\na.PNG,1.0\n", "label '1.0'"),
        ("file,label\na.PNG\n", "label ''"),
        ("file,label\na.PNG,²\n", "label '²'"),
        ("file,label\na.PNG,1\na.PNG,2\n", "line 3: a.PNG has a label already"),
        ("file,label\na.PNG,1\ngone.png,2\n", "line 3: there is no file gone.png"),
        (b"file,label\n\xff,1\n", "cannot be read"),
        ('file,label\n"a.PNG,1\n', "cannot be read"),
    ],
)
def test_a_csv_that_cannot_be_trusted_is_refused(folder, text, words):
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArtifactError) as e:
        open_samples(folder)
    assert words in str(e.value)
    assert "labels.csv" in str(e.value)


def test_labels_beyond_the_network_are_refused(folder):
    write_labels(folder / "labels.csv", dict.fromkeys(open_images(folder), 3))
    assert open_samples(folder, classes=("a", "b", "c", "d")).labels.tolist() == [3] * 4
    with pytest.raises(ArtifactError, match=r"label 3 of a\.PNG, and the network has 3 classes"):
        open_samples(folder, classes=("a", "b", "c"))
    write_labels(folder / "labels.csv", dict.fromkeys(open_images(folder), 10**30))
    with pytest.raises(ArtifactError, match=r"label 10{30}"):
        open_samples(folder)


CLASSES = ("cat", "dog", "crane", "crane", "2")


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        (["0/x", "7/x", "7/y"], None, [0, 7, 7]),
        (["003/x", "11/x"], None, [3, 11]),
        (["dog/x", "cat/x"], CLASSES, [1, 0]),
        (["2/x", "0/x"], CLASSES, [2, 0]),  # all numbers: class indices
        (["dog/x", "cat/x"], None, None),  # an order of names is no label
        (["dog/x", "cow/x"], CLASSES, None),
        (["dog/x", "crane/x"], CLASSES, None),  # two classes have that name
        (["dog/x", "0/x"], CLASSES, None),
        (["0/x", "5/x"], CLASSES, None),  # class 5 of five
        (["0/x", "0/y"], None, None),  # one folder
        (["0/x", "1/x", "y"], None, None),
        (["0/x", "1/deep/y"], None, None),
        (["1/x", "01/x"], None, None),  # the same class twice
        (["-1/x", "1/x"], None, None),
        (["2019/x", "2020/x"], CLASSES, None),  # years
        ([f"{10**30}/x", "1/x"], None, None),
    ],
)
def test_folders_are_labels_only_where_their_names_say_so(tmp_path, names, classes, expected):
    found = labels.find(tmp_path, [f"{name}.png" for name in names], classes)
    assert (None if found is None else found.tolist()) == expected


def test_folders_of_classes_label_their_images(tmp_path):
    for name in ("dog/a.png", "cat/b.png", "cat/a.png"):
        save(tmp_path / name)
    samples = open_samples(tmp_path, classes=CLASSES)
    assert [(samples.name(i), int(samples.labels[i])) for i in range(3)] == [
        ("cat/a.png", 0),
        ("cat/b.png", 0),
        ("dog/a.png", 1),
    ]


# an .npz


def npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_an_npz_gives_its_images_and_labels(tmp_path):
    pixels, truth = RNG.integers(0, 256, (5, 4, 6, 3), np.uint8), np.array([3, 1, 4, 1, 5], np.uint8)
    samples = open_samples(npz(tmp_path / "x.npz", images=pixels, labels=truth))
    assert [samples.name(i) for i in range(len(samples))] == [f"images[{i}]" for i in range(5)]
    assert all(np.array_equal(samples.image(i), pixels[i]) for i in range(5))
    assert samples.labels.dtype == np.int64
    assert samples.labels.tolist() == [3, 1, 4, 1, 5]
    assert samples.source == "5 images of x.npz"
    some = open_samples(tmp_path / "x.npz", count=2)
    for i in range(2):
        at = int(some.name(i)[7:-1])
        assert np.array_equal(some.image(i), pixels[at])
        assert some.labels[i] == truth[at]
    assert some.sha256() != samples.sha256() == open_samples(tmp_path / "x.npz").sha256()
    unlabelled = open_samples(npz(tmp_path / "y.npz", images=pixels))
    assert unlabelled.labels is None
    assert unlabelled.sha256() != samples.sha256()
    with pytest.raises(ValueError, match="read-only"):
        samples.image(0)[:] = 0


IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": IMAGES}, "holds no array 'images'"),
        ({"images": IMAGES.astype(np.float32)}, "images are float32 of shape (3, 4, 4, 3)"),
        ({"images": IMAGES[..., 0]}, "images are uint8 of shape (3, 4, 4)"),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, "images are uint8 of shape (3, 3, 4, 4)"),
        ({"images": IMAGES[:0]}, "images are uint8 of shape (0, 4, 4, 3)"),
        ({"images": np.array([IMAGES, None], object)}, "cannot be read"),
        ({"images": IMAGES, "labels": np.zeros(3)}, "labels are float64"),
        ({"images": IMAGES, "labels": np.zeros(2, int)}, "labels are int64 of shape (2,), for 3 images"),
        ({"images": IMAGES, "labels": np.zeros((3, 1), int)}, "labels are int64 of shape (3, 1)"),
        ({"images": IMAGES, "labels": np.array([0, -1, 2])}, "labels are"),
        ({"images": IMAGES, "labels": np.array([0, 2**64 - 1, 2], np.uint64)}, "labels are uint64"),
        ({"images": IMAGES, "labels": np.array(["cat", "dog", "cow"], object)}, "cannot be read"),
    ],
)
def test_an_npz_of_something_else_is_refused(tmp_path, arrays, words):
    with pytest.raises(ArtifactError) as e:
        open_samples(npz(tmp_path / "x.npz", **arrays))
    assert words in str(e.value)
    assert e.value.fix


def test_a_damaged_npz_is_refused(tmp_path):
    path = npz(tmp_path / "x.npz", images=RNG.integers(0, 256, (3, 4, 4, 3), np.uint8))
    whole = path.read_bytes()
    for data in (b"", b"text", whole[:-40], whole[:100], whole[:200] + b"x" + whole[201:]):
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match=r"x\.npz"):
            open_samples(path)
    np.save(tmp_path / "y.npy", IMAGES)
    with pytest.raises(ArtifactError, match=r"z\.npz holds no array"):
        open_samples((tmp_path / "y.npy").rename(tmp_path / "z.npz"))


# made up


def test_drawn_images_are_the_same_for_a_seed_and_vary_within_it():
    samples = drawn(12, 24, seed=5)
    pixels = np.stack([samples.image(i) for i in range(12)])
    assert pixels.shape == (12, 24, 24, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(samples.image(7), drawn(8, 24, seed=5).image(7))
    assert not np.array_equal(samples.image(7), drawn(12, 24, seed=6).image(7))
    assert samples.sha256() == drawn(12, 24, seed=5).sha256() != drawn(12, 24, seed=6).sha256()
    assert samples.source == "12 drawn images (not photographs)"
    assert (samples.labels, samples.skipped, samples.random, samples.name(3)) == (None, (), False, "drawn[3]")
    assert pixels.mean((1, 2, 3)).std() > 20  # bright and dark
    contrasts = pixels.std((1, 2)).mean(1)
    assert contrasts.max() > 3 * contrasts.min()
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_noise_is_marked():
    samples = noise(2, 64)
    pixels = np.stack([samples.image(i) for i in range(2)])
    assert samples.random
    assert samples.source == "2 images of random noise"
    assert abs(pixels.mean() - 127.5) < 3
    assert len(np.unique(pixels)) == 256
    assert not np.array_equal(pixels[0], pixels[1])


def test_there_is_no_image_beyond_the_count():
    with pytest.raises(IndexError):
        drawn(2, 8).image(2)
    with pytest.raises(SpecError, match="cannot make 0 images"):
        drawn(0, 8)


# memory, and real data


def test_images_are_decoded_on_demand_and_not_kept(tmp_path):
    for i in range(12):
        save(tmp_path / f"{i}.png", np.full((300, 300, 3), i, np.uint8))
    tracemalloc.start()
    samples = open_samples(tmp_path)
    for i in range(12):
        samples.image(i)
    samples.sha256()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 300 * 300 * 3


DATA = Path(os.environ.get("DLCV_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.skipif(not (DATA / "imagenet224").is_dir(), reason="no imagenet224 in DLCV_DATA")
def test_photographs_find_their_labels_from_both_folders():
    above, inside = open_samples(DATA / "imagenet224"), open_samples(DATA / "imagenet224" / "images")
    assert len(above) == len(inside) == 150
    assert above.labels.tolist() == inside.labels.tolist()
    assert above.name(0) == f"images/{inside.name(0)}"
    assert inside.image(0).shape == (299, 299, 3)


@pytest.mark.skipif(not (DATA / "cifar10").is_dir(), reason="no cifar10 in DLCV_DATA")
def test_cifar10_comes_from_the_data_folder(monkeypatch):
    monkeypatch.setenv("DLCV_DATA", str(DATA))
    samples = open_samples("cifar10", count=100)
    assert samples.source == "100 of 10000 CIFAR-10 test images"
    assert samples.image(0).shape == (32, 32, 3)
    assert samples.name(0).startswith("test[")
    everything = open_samples("cifar10")
    assert np.bincount(everything.labels).tolist() == [1000] * 10
