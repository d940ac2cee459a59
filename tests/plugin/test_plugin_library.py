"""The library's file says what it is; what is none, is damaged or serves others is refused in words."""

import pytest
from helpers.plugin import library_bytes

from dlcv_deploy.digest import sha256
from dlcv_deploy.errors import ArtifactError
from dlcv_deploy.plugin.library import FILE, OPS, Library, check_serves, read_library


def test_it_says_what_it_is():
    data = library_bytes()
    library = read_library(data, "x.so")
    assert library == Library(data, "10.14.1", (75, 90), "13.0", "ab" * 32)
    assert (library.sha256, library.machine) == (sha256(data), "x86_64")
    assert (FILE, OPS) == ("libdlcv_lrn.so", ("DlcvLRN", "DlcvLRNMaxPool"))
    assert "ELF" not in repr(library)


def test_architectures_come_in_order_and_once():
    assert read_library(library_bytes(architectures=[90, 75, 90, 120]), "x").architectures == (75, 90, 120)


@pytest.mark.parametrize(("number", "machine"), [(183, "aarch64"), (243, "processor 243")])
def test_it_says_which_processor_it_is_for(number, machine):
    assert read_library(library_bytes(machine=number), "x").machine == machine


def test_it_may_say_the_same_twice():
    data = library_bytes()
    told = data[data.index(b"DLCV_PLUGIN_INFO") :]
    assert read_library(data + told, "x").tensorrt == "10.14.1"


def refusal(data):
    with pytest.raises(ArtifactError) as e:
        read_library(data, "x.so")
    return e.value.what


def test_what_is_no_library_is_refused():
    assert refusal(b"") == "x.so is empty"
    for data in (b"a text with DLCV_PLUGIN_INFO{}\0", b"PK\x03\x04", b"\x7f"):
        assert refusal(data) == "x.so is not a shared library for Linux"


def test_a_library_of_something_else_is_refused():
    data = library_bytes().replace(b"DLCV_PLUGIN_INFO{", b"DLCV_PLUGIN_INFO ")
    assert refusal(data) == "x.so is not the LRN plugin: no DLCV_PLUGIN_INFO stands in it"


@pytest.mark.parametrize("cut", [1, 100, 190, 240])
def test_a_library_that_is_cut_off_is_refused(cut):
    assert refusal(library_bytes()[:-cut]) == "x.so is damaged: it is cut off, or is no library for 64-bit processors"


def test_a_library_for_32_bits_is_refused():
    data = library_bytes().replace(b"\x7fELF\x02", b"\x7fELF\x01")
    assert "no library for 64-bit processors" in refusal(data)


@pytest.mark.parametrize(
    "said",
    [
        "{}",
        '{"schema":1',
        "{\x01}",
        *(f'{{"schema":1,"tensorrt":"10.1.0","architectures":{a},"cuda":"13.0","source":"ab"}}' for a in ("75", "[]")),
        '{"schema":1,"tensorrt":"10.1.0","architectures":["75"],"cuda":"13.0","source":"ab"}',
        '{"schema":1,"tensorrt":"10.1.0","architectures":[true],"cuda":"13.0","source":"ab"}',
        '{"schema":1,"tensorrt":10,"architectures":[75],"cuda":"13.0","source":"ab"}',
        '{"schema":1,"tensorrt":"10.1.0","architectures":[75],"cuda":"13.0","source":""}',
        '{"schema":2,"tensorrt":"10.1.0","architectures":[75],"cuda":"13.0","source":"ab"}',
        '{"tensorrt":"10.1.0","architectures":[75],"cuda":"13.0","source":"ab"}',
    ],
)
def test_what_cannot_be_read_is_refused(said):
    assert refusal(library_bytes(said)) == "x.so is damaged: what it says of itself cannot be read"


def test_two_stories_are_refused():
    data = library_bytes() + b"DLCV_PLUGIN_INFO" + b'{"schema":1}\0'
    assert refusal(data) == "x.so is damaged: what it says of itself cannot be read"


def test_a_story_without_an_end_is_refused():
    data = library_bytes(sections=0)
    assert refusal(data[: data.index(b"}") + 1]).startswith("x.so is damaged")


def serves(architectures, *sm, major=None):
    check_serves(read_library(library_bytes(architectures=architectures), "x"), major=major, sm=sm)


@pytest.mark.parametrize(
    ("held", "sm"),
    [
        ([75, 80], (75, 80)),
        ([75, 86], (89,)),  # machine code of one generation runs on its later members
        ([75, 80], (90, 120)),  # and PTX of the highest on all above
        ([100, 120], (103,)),
        ([86], (87,)),  # PTX
        ([75, 86, 90], ()),
    ],
)
def test_whom_it_serves(held, sm):
    serves(held, *sm)


@pytest.mark.parametrize(
    ("held", "sm", "missing"),
    [
        ([75, 86], (80, 86), "80"),
        ([80, 90], (75,), "75"),
        ([75, 90], (80, 86, 90), "80, 86"),
        ([80, 90], (87,), "87"),  # an embedded GPU runs its own code only
        ([87, 90], (89,), "89"),
        ([90, 120], (100,), "100"),
    ],
)
def test_whom_it_does_not_serve(held, sm, missing):
    with pytest.raises(ArtifactError) as e:
        serves(held, *sm)
    text = ", ".join(map(str, held))
    assert e.value.what == f"the plugin's library was built for the GPU architectures {text} and not for {missing}"
    wanted = ",".join(str(n) for n in sorted({*held, *map(int, missing.split(", "))}))
    assert e.value.fix == f"build it for them: dlcv-deploy plugin build --arch {wanted}"


def test_another_tensorrt_is_refused():
    serves([75], major=10)
    with pytest.raises(ArtifactError) as e:
        serves([75], major=11)
    assert e.value.what == "the plugin's library was built against TensorRT 10.14.1, and this is TensorRT 11"
    assert e.value.fix == ("build it with the headers of TensorRT 11: set TENSORRT_ROOT or DLCV_TENSORRT_INCLUDE")
    with pytest.raises(ArtifactError, match=r"this is TensorRT 1$|this is TensorRT 1\n"):
        serves([75], major=1)  # not the first digit of 10


def test_the_real_one_says_what_it_was_built_for(plugin_library):
    assert plugin_library.architectures == (75, 86)
    assert plugin_library.tensorrt.split(".")[0] in ("10", "11")
    serves(list(plugin_library.architectures), 75, 89, 120, 121)
