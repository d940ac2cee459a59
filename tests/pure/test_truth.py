"""ImageNet's layouts: every image gets its class, and what might mean another is refused."""

import numpy as np
import pytest
from PIL import Image

from dlcv_deploy.calibration import imagenet, labels
from dlcv_deploy.calibration.samples import open_samples
from dlcv_deploy.errors import ArtifactError, SpecError

NAMES = tuple(f"class {i}" for i in range(1000))
IDS = list(imagenet.ids())
DEVKIT = {label: number for number, label in imagenet.by_devkit().items()}
VAL = [f"ILSVRC2012_val_{i:08}.JPEG" for i in range(1, 25)]
CLASSES = [*imagenet.FIRST, 334, 173, 948, 727]
"""Of the first 24 images."""


def find(folder, names=VAL, classes=NAMES, given=None):
    found = labels.find(folder, names, classes, given)
    return None if found is None else found.tolist()


def in_order(*labels, rest="1"):
    """A list of a label a line, for all 50,000 images."""
    return "".join(f"{label}\n" for label in [*labels, *[rest] * (50_000 - len(labels))])


CAFFE = "".join(f"{name} {label}\n" for name, label in zip(VAL, CLASSES, strict=True))
KAGGLE = "ImageId,PredictionString\n" + "".join(
    f"{name[:-5]},{IDS[label]} 111 108 431 {i} n02119789 1 2 3 4 \n"
    for i, (name, label) in enumerate(reversed(list(zip(VAL, CLASSES, strict=True))))
)
GROUND = in_order(*(DEVKIT[label] for label in CLASSES))


def test_the_ids_are_those_of_the_data_set():
    assert len(imagenet.ids()) == len(imagenet.by_devkit()) == 1000
    assert sorted(IDS) == IDS
    assert list(imagenet.ids().values()) == list(range(1000))
    assert sorted(imagenet.by_devkit()) == sorted(range(1, 1001))
    known = {"n01440764": 0, "n01443537": 1, "n02119789": 278, "n02123045": 281, "n03255030": 543, "n15075141": 999}
    assert {name: imagenet.ids()[name] for name in known} == known
    kit = ["n02119789", "n02100735", "n02110185", "n02096294", "n02102040", "n02066245", "n02509815", "n02124075"]
    assert [IDS[imagenet.by_devkit()[number]] for number in range(1, 9)] == kit
    assert IDS[imagenet.by_devkit()[1000]] == "n03255030"
    # the first lines of the development kit's ground truth, of images whose class others give by id
    first = [490, 361, 171, 822, 297, 482, 13, 704, 599, 164]
    assert [imagenet.by_devkit()[number] for number in first] == list(imagenet.FIRST[:10])


def test_the_ids_go_with_the_names_that_this_project_gives_the_classes():
    from importlib import resources

    names = resources.files("dlcv_deploy.models").joinpath("labels/imagenet.txt").read_text().splitlines()
    at = imagenet.ids()
    assert [names[at[i]] for i in ("n01440764", "n02119789", "n02123045", "n03255030")] == [
        "tench",
        "kit fox",
        "tabby",
        "dumbbell",
    ]


def test_folders_named_by_ids_are_classes_where_there_are_a_thousand(tmp_path):
    names = ["n02119789/x.JPEG", "n01440764/a.JPEG"]
    assert find(tmp_path, names) == [278, 0]
    assert find(tmp_path, names[:1]) == [278]  # one folder is enough: its name says all
    assert find(tmp_path, names, NAMES[:999]) is None
    assert find(tmp_path, names, None) is None
    assert find(tmp_path, [*names, "n00000001/b.JPEG"]) is None
    assert find(tmp_path, [*names, "n01440764/deep/b.JPEG"]) is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("val.txt", CAFFE),
        ("val.txt", CAFFE.replace("ILSVRC", "val/ILSVRC").replace(" ", "\t")),
        ("val.txt", "".join(f"{name} {IDS[label]}\n" for name, label in zip(VAL, CLASSES, strict=True))),
        ("LOC_val_solution.csv", KAGGLE),
        ("LOC_val_solution.csv", KAGGLE.replace("\n", "\r\n")),
        ("ILSVRC2012_validation_ground_truth.txt", GROUND),
        ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", GROUND),
        ("ILSVRC2012_validation_ground_truth.txt", in_order(*CLASSES)),  # as some hand it on
        ("ILSVRC2012_validation_ground_truth.txt", in_order(*(IDS[label] for label in CLASSES), rest=IDS[7])),
    ],
)
@pytest.mark.parametrize("where", ["in", "beside", "given"])
def test_the_flat_folder_is_labelled_by_any_of_its_lists(tmp_path, file, text, where):
    folder, other = tmp_path / "val", tmp_path / "other"
    path = {"in": folder, "beside": tmp_path, "given": other}[where] / file
    for each in (folder, path.parent):
        each.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline="")
    given = path if where == "given" else None
    assert find(folder, given=given) == CLASSES
    assert find(folder, VAL[5:7][::-1], given=given) == CLASSES[5:7][::-1]
    assert find(folder, [name.replace("JPEG", "png") for name in VAL[:3]], given=given) == CLASSES[:3]
    if where != "given":
        assert find(folder, classes=NAMES[:10]) is None  # not ImageNet's classes: not looked for
        assert find(folder, [*VAL, "holiday.jpg"]) is None


def test_lists_that_disagree_are_refused(tmp_path):
    (tmp_path / "val.txt").write_text(CAFFE)
    (tmp_path / "LOC_val_solution.csv").write_text(KAGGLE)
    assert find(tmp_path) == CLASSES
    (tmp_path / "val.txt").write_text(CAFFE.replace("24.JPEG 727", "24.JPEG 726"))
    with pytest.raises(ArtifactError, match=r"val.txt and LOC_val_solution.csv give .*24.JPEG different labels") as e:
        find(tmp_path)
    assert "--truth" in e.value.fix
    assert find(tmp_path, given=tmp_path / "LOC_val_solution.csv") == CLASSES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (b"\xff\xfe\x00", "cannot be read"),
        (CAFFE + "12\n", "not all alike"),
        (CAFFE + "x.JPEG n01440764\n", "not all alike"),
        ("".join(CAFFE.splitlines(True)[:-1]), "labels for 23 of the 24 images, and none for ILSVRC2012_val_00000024"),
        (CAFFE.replace(" 516", " cat"), "label 'cat' is no class index"),
        (CAFFE.replace(" 727", " 1000"), "there is no class 1000"),
        (CAFFE + CAFFE.replace(" 727", " 726"), "gives ILSVRC2012_val_00000024.JPEG two labels"),
        ("".join(f"{n} {label + 1}\n" for n, label in zip(VAL, CLASSES, strict=True)), "first images are neither"),
        (in_order(*(DEVKIT[label] for label in CLASSES)) + "5\n", "50,001 labels, and ImageNet 50,000"),
        (GROUND[: GROUND.index("\n") + 1] * 3, "has 3 labels, and ImageNet 50,000 validation images"),
        (in_order(*(DEVKIT[label] for label in CLASSES[1:])), "first images are neither"),  # a line is missing
        (in_order(*(IDS[0] for _ in CLASSES), rest="n00000000"), None),
        (KAGGLE.replace(IDS[727], "n00000000"), "n00000000, of ILSVRC2012_val_00000024.JPEG, is none of ImageNet's"),
        (KAGGLE.replace(f"{IDS[727]} 111 108 431 0 n02119789 1 2 3 4 ", ""), "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused(tmp_path, text, words):
    (tmp_path / "val.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    if words is None:
        assert find(tmp_path) == [0] * 24  # ids need no order to be told
        return
    with pytest.raises(ArtifactError, match=r"val\.txt") as e:
        find(tmp_path)
    assert words in str(e.value)
    assert e.value.fix


def test_numbers_without_the_first_images_are_refused(tmp_path):
    late = [f"ILSVRC2012_val_{i:08}.JPEG" for i in (30_000, 30_001)]
    (tmp_path / "val.txt").write_text(f"{late[0]} 5\n{late[1]} 6\n")
    with pytest.raises(ArtifactError, match="without the first 20 images it cannot be told"):
        find(tmp_path, late)
    (tmp_path / "val.txt").write_text(f"{late[0]} 5\n{late[1]} 6\n{CAFFE}")
    assert find(tmp_path, late) == [5, 6]


def test_a_given_list_labels_any_images(tmp_path):
    names = ["a b.png", "deep/c.png"]
    (tmp_path / "list.txt").write_text("a b.png 3\nsome/where/c.png 0\nother.png 9\n")
    assert find(tmp_path, names, ("w", "x", "y", "z"), tmp_path / "list.txt") == [3, 0]
    with pytest.raises(ArtifactError, match=r"label 3 of a b.png, and the network has 3 classes"):
        find(tmp_path, names, ("w", "x", "y"), tmp_path / "list.txt")
    with pytest.raises(ArtifactError, match="3 of the 3 images, and several of these have the same name"):
        find(tmp_path, [*names, "c.png"], None, tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("3\n0\n")
    with pytest.raises(ArtifactError, match=r"has no names, and a b.png is not named as ImageNet"):
        find(tmp_path, names, None, tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("a b.png n01440764\nc.png n01440764\n")
    with pytest.raises(ArtifactError, match="the network has 4 classes, not 1,000"):
        find(tmp_path, names, ("w", "x", "y", "z"), tmp_path / "list.txt")
    with pytest.raises(ArtifactError, match=r"gone.txt cannot be read: No such file"):
        find(tmp_path, names, None, tmp_path / "gone.txt")


def test_a_given_table_names_files_from_the_images_folder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, name in enumerate(("a.png", "b.png")):
        Image.fromarray(np.full((2, 2, 3), i, np.uint8)).save(photos / name)
    (photos / "labels.csv").write_text("file,label\na.png,1\nb.png,1\n")
    (tmp_path / "mine.csv").write_text("label,file\n4,a.png\n5,b.png\n")
    assert open_samples(photos).labels.tolist() == [1, 1]
    assert open_samples(photos, truth=tmp_path / "mine.csv").labels.tolist() == [4, 5]
    (tmp_path / "mine.csv").write_text("label,file\n4,a.png\n")
    with pytest.raises(ArtifactError, match=r"mine.csv has no label for b.png: it labels 1 of 2 images"):
        open_samples(photos, truth=tmp_path / "mine.csv")
    with pytest.raises(SpecError, match=r"mine.csv is to label a folder of images, and cifar10 is none"):
        open_samples("cifar10", truth=tmp_path / "mine.csv")


def test_a_csv_of_ones_own_comes_first(tmp_path):
    for name in VAL[:2]:
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "val.txt").write_text(CAFFE)
    assert open_samples(tmp_path, classes=NAMES).labels.tolist() == CLASSES[:2]
    (tmp_path / "labels.csv").write_text("".join(["file,label\n", *(f"{name},7\n" for name in VAL[:2])]))
    assert open_samples(tmp_path, classes=NAMES).labels.tolist() == [7, 7]


def test_names_are_told_from_look_alikes():
    assert imagenet.validation_number("a/b/ILSVRC2012_val_00000293.JPEG") == 293
    for name in ("ILSVRC2012_val_293.JPEG", "ILSVRC2012_val_00050001.JPEG", "xILSVRC2012_val_00000001.JPEG"):
        assert imagenet.validation_number(name) is None
