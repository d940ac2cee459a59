import dataclasses as dc
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlcv_deploy.digest import digest, sha256, sha256_file


@dc.dataclass(frozen=True)
class Point:
    x: int
    y: float


def test_names_and_values_cannot_run_together():
    assert digest(a="bc") != digest(ab="c")
    assert digest(a=b"1", b=b"2") != digest(a=b"12", b=b"")
    assert digest(a=1) != digest(a="1")


def test_order_of_the_parts_does_not_matter():
    assert digest(a=1, b=[2]) == digest(b=[2], a=1)


def test_a_dataclass_is_its_fields():
    assert digest(p=Point(1, 2.0)) == digest(p={"y": 2.0, "x": 1})
    assert digest(p=Point(1, 2.0)) != digest(p=Point(1, 2.5))


def test_what_json_cannot_name_is_refused():
    with pytest.raises(TypeError):
        digest(a=object())


@given(st.dictionaries(st.text("abc", max_size=3), st.binary(max_size=4), max_size=3), st.data())
def test_different_parts_differ(parts, data):
    other = data.draw(st.dictionaries(st.text("abc", max_size=3), st.binary(max_size=4), max_size=3))
    parts, other = ({f"k{k}": v for k, v in d.items()} for d in (parts, other))
    assert (digest(**parts) == digest(**other)) == (parts == other)


def test_files_hash_as_their_bytes(tmp_path):
    data = b"x" * (3 << 20)
    (tmp_path / "f").write_bytes(data)
    assert sha256_file(tmp_path / "f") == sha256(data) == hashlib.sha256(data).hexdigest()
