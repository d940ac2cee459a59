"""DLPack's capsules, against the real producers and consumers that a CPU has: NumPy and torch."""

import ctypes
import subprocess
import sys
import weakref

import numpy as np
import pytest
from helpers.host_cuda import LEGACY, HostCuda

from dlcv_deploy.errors import SpecError
from dlcv_deploy.runtime import dlpack
from dlcv_deploy.runtime.device_array import reserve

VERSIONS = (None, (0, 8), (1, 0), (1, 1), (2, 0))


class Owner(np.ndarray):
    """An array whose end can be seen."""


def owner_of(values):
    return np.asarray(values).copy().view(Owner)


def lent(owner, version=None, device=(1, 0), **how):
    return dlpack.lent(owner, owner.ctypes.data, owner.shape, owner.dtype, device, version, **how)


TYPES = [*(("float32", version) for version in VERSIONS), *((name, (1, 0)) for name in ("float16", "int8", "int64"))]


@pytest.mark.parametrize(("dtype", "version"), TYPES)
def test_torch_uses_lent_memory_where_it_lies(dtype, version):
    torch = pytest.importorskip("torch")
    owner = owner_of(np.arange(24, dtype=dtype).reshape(2, 3, 4))
    ended = weakref.ref(owner)
    tensor = torch.from_dlpack(lent(owner, version))
    assert (tensor.data_ptr(), tuple(tensor.shape)) == (owner.ctypes.data, (2, 3, 4))
    assert str(tensor.dtype) == f"torch.{dtype}"
    tensor[1, 2, 3] = 7
    assert owner[1, 2, 3] == 7
    del owner
    assert ended() is not None
    assert tensor.sum() == sum(range(23)) + 7
    del tensor
    assert ended() is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_capsule_is_taken_as_it_was_lent_and_once(version):
    owner = owner_of(np.zeros((2, 3), np.float32))
    ended = weakref.ref(owner)
    capsule = lent(owner, version, (2, 5))
    with dlpack.taken(capsule) as got:
        assert (got.address, got.shape, got.dtype, got.device) == (owner.ctypes.data, (2, 3), "float32", (2, 5))
        assert got.strides in (None, (3, 1))
        del owner
        assert ended() is not None
    assert ended() is None
    with pytest.raises(SpecError, match="no array that is still to be taken"), dlpack.taken(capsule):
        pass


def test_a_capsule_that_nobody_takes_frees_its_owner():
    for version in VERSIONS:
        owner = owner_of(np.zeros(3))
        ended = weakref.ref(owner)
        capsule = lent(owner, version)
        del owner
        assert ended() is not None
        del capsule
        assert ended() is None


def test_a_consumer_that_refuses_the_device_frees_the_owner():
    """NumPy lets the capsule go while its own error is on the way."""
    owner = owner_of(np.zeros(3, np.float32))
    ended = weakref.ref(owner)

    class There:
        def __init__(self, owner):
            self.owner = owner

        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, **how):
            return lent(self.owner, (1, 0), (2, 0))

    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(There(owner))
    del owner
    assert ended() is None


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_torchs_capsules_are_read(version):
    torch = pytest.importorskip("torch")
    how = {} if version is None else {"max_version": version}
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    cases = [
        (base, "float32", (2, 3, 4), (12, 4, 1)),
        (base[1:], "float32", (1, 3, 4), None),
        (base.transpose(0, 2), "float32", (4, 3, 2), (1, 4, 12)),
        (base.to(torch.bfloat16), "bfloat16", (2, 3, 4), (12, 4, 1)),
        (base > 3, "bool", (2, 3, 4), (12, 4, 1)),
        (base.to(torch.complex64), "complex64", (2, 3, 4), (12, 4, 1)),
        (base.to(torch.uint8), "uint8", (2, 3, 4), (12, 4, 1)),
    ]
    for tensor, dtype, shape, strides in cases:
        with dlpack.taken(tensor.__dlpack__(**how)) as got:
            assert (got.address, got.dtype, got.shape) == (tensor.data_ptr(), dtype, shape)
            assert got.device == (1, 0)
            assert strides is None or got.strides == strides


class Made:
    """A capsule made by hand, with a deleter that counts."""

    def __init__(self, form=dlpack._Managed, deleter=True, **fields):
        self.deleted = []
        self.delete = dlpack._Deleter(self.deleted.append)
        self.managed, self.shape = form(), (ctypes.c_int64 * 2)(4, 3)
        tensor = self.managed.tensor
        tensor.data, tensor.byte_offset, tensor.ndim, tensor.shape = 1 << 20, 256, 2, self.shape
        tensor.code, tensor.bits, tensor.lanes = 2, 32, 1
        tensor.device_type, tensor.device_id = 2, 0
        self.managed.deleter = ctypes.cast(self.delete, ctypes.c_void_p) if deleter else None
        for name, value in fields.items():
            setattr(tensor if hasattr(tensor, name) else self.managed, name, value)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        self.capsule = new(ctypes.addressof(self.managed), form.NAME, None)


@pytest.mark.parametrize("form", [dlpack._Managed, dlpack._Versioned])
def test_the_deleter_is_called_once_whatever_happens(form):
    made = Made(form)
    with dlpack.taken(made.capsule) as got:
        assert got == dlpack.Taken((1 << 20) + 256, (4, 3), "float32", None, (2, 0))
        assert made.deleted == []
        assert form.USED.decode() in repr(made.capsule)
    assert made.deleted == [ctypes.addressof(made.managed)]
    made = Made(form)
    with pytest.raises(KeyError), dlpack.taken(made.capsule):
        raise KeyError
    assert len(made.deleted) == 1
    made = Made(form, deleter=False)
    with dlpack.taken(made.capsule):
        pass
    assert made.deleted == []


def test_a_later_major_version_is_refused_and_given_back():
    made = Made(dlpack._Versioned, major=2, minor=1)
    with pytest.raises(SpecError, match=r"comes by DLPack 2\.1, and 1\.1 is known"), dlpack.taken(made.capsule):
        pass
    assert len(made.deleted) == 1


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({"lanes": 4}, "float32x4"),
        ({"code": 17, "bits": 4}, "DLPack type 17, 4"),
        ({"code": 9}, "DLPack type 9, 32"),
    ],
)
def test_types_that_numpy_has_not_are_named(fields, dtype):
    made = Made(**fields)
    with dlpack.taken(made.capsule) as got:
        assert got.dtype == dtype


def test_what_is_no_capsule_is_refused():
    for thing in (None, 3, np.zeros(3)):
        with pytest.raises(SpecError, match="holds no array"), dlpack.taken(thing):
            pass


def test_lent_memory_outlives_python():
    """What frees it runs when Python's modules are gone, or Python itself."""
    pytest.importorskip("torch")
    code = (
        "import sys, numpy as np, torch; from dlcv_deploy.runtime import dlpack\n"
        "x = np.zeros(3, np.float32)\n"
        "def lent(version): return dlpack.lent(x, x.ctypes.data, (3,), 'float32', (1, 0), version)\n"
        "for where in sys, torch, np:\n"
        "    where.kept = [lent(None), lent((1, 0)), *map(torch.from_dlpack, (lent(None), lent((1, 0))))]\n"
        "    where.kept.append(where.kept)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- a DeviceArray's side


@pytest.fixture
def array():
    gpu = HostCuda()
    memory, made = reserve(gpu, {"a": ((2, 3), "float32"), "b": ((3,), "float16")}, None)
    gpu._memory[memory.address][:24] = np.arange(6, dtype=np.float32).view(np.uint8)
    assert made["b"].address == memory.address + 256
    return made["a"]


def gpu_of(array):
    return array._memory.gpu


@pytest.mark.parametrize(("stream", "told"), [(None, [LEGACY]), (1, [1]), (2, [2]), (-1, [])])
def test_the_consumers_stream_waits(array, stream, told):
    gpu_of(array).said.clear()
    with dlpack.taken(array.__dlpack__(stream=stream, max_version=(1, 0))) as got:
        assert (got.address, got.device, got.dtype) == (array.address, (2, 0), "float32")
    assert gpu_of(array).said == [("after", number) for number in told]


@pytest.mark.parametrize("stream", [0, -2, "x"])
def test_a_stream_that_is_none_is_refused(array, stream):
    with pytest.raises(BufferError, match="is no stream: 1 is the default stream"):
        array.__dlpack__(stream=stream)


def test_a_copy_is_another_array(array):
    gpu, left = gpu_of(array), gpu_of(array).left
    capsule = array.__dlpack__(copy=True, max_version=(1, 0))
    assert gpu.left == left + 1
    managed = dlpack._Versioned.from_address(dlpack._pointer(capsule, dlpack._Versioned.NAME))
    assert managed.flags & dlpack._IS_COPIED
    with dlpack.taken(capsule) as got:
        assert got.address != array.address
        gpu.wait(LEGACY)
        np.testing.assert_array_equal(gpu.seen(got.address, (2, 3)), array.numpy())
    assert gpu.left == left
    assert not dlpack._Versioned.from_address(
        dlpack._pointer(array.__dlpack__(max_version=(1, 0)), dlpack._Versioned.NAME)
    ).flags


def test_the_host_gets_a_copy_if_it_asks(array):
    class OnHost:
        __dlpack_device__ = staticmethod(lambda: (1, 0))
        __dlpack__ = staticmethod(lambda **how: array.__dlpack__(dl_device=(1, 0), max_version=(1, 0)))

    np.testing.assert_array_equal(np.from_dlpack(OnHost()), np.arange(6, dtype=np.float32).reshape(2, 3))
    for device, copy in (((1, 0), False), ((2, 1), None), ((10, 0), True)):
        with pytest.raises(BufferError, match="is not shared with DLPack's device"):
            array.__dlpack__(dl_device=device, copy=copy)
    with dlpack.taken(array.__dlpack__(dl_device=(2, 0))) as got:
        assert got.address == array.address
