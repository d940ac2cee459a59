"""The original as PyTorch runs it otherwise: the same answers, or a reason in words, and nothing left behind."""

import logging
import os
import warnings

import numpy as np
import pytest

from dlcv_deploy.backends.base import Described
from dlcv_deploy.errors import SpecError
from dlcv_deploy.reference import CompiledSession, TorchSession, torch_threads
from dlcv_deploy.types import TensorSpec

torch = pytest.importorskip("torch")
SPECS = (TensorSpec("x", (3, 8, 8)),), (TensorSpec("logits", (5,)),)


class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 4, 3),
            torch.nn.Flatten(),
            torch.nn.Linear(4 * 6 * 6, 5),
        )

    def outputs(self, x):
        return {"logits": self(x), "features": self[2](self[1](self[0](x)))}


def images(batch):
    return {"x": np.random.default_rng(batch).standard_normal((batch, 3, 8, 8)).astype(np.float32)}


def test_channels_last_answers_alike_and_leaves_the_original_as_it_is():
    net = Net().eval()
    both = (TensorSpec("logits", (5,)), TensorSpec("features", (4, 6, 6)))
    eager, turned = (TorchSession(net, SPECS[0], both, channels_last=last) for last in (False, True))
    seen = []
    turned._net.net[0].register_forward_pre_hook(lambda module, x: seen.append(x[0]))
    expected, got = eager.run(images(4)), turned.run(images(4))
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-5, atol=1e-5)
        assert got[name].flags["C_CONTIGUOUS"]
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert turned._net.net[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert not net[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert eager.settings == turned.settings | {"memory_format": "contiguous_format"}
    assert turned.settings["memory_format"] == "channels_last"


def test_settings_say_what_pytorch_says():
    session = TorchSession(Net(), *SPECS)
    assert isinstance(session, Described)
    with torch_threads(1):
        assert session.settings == {
            "version": torch.__version__,
            "execution": "eager",
            "memory_format": "contiguous_format",
            "num_threads": "1",
            "mkldnn": str(torch.backends.mkldnn.is_available()),
            "float32_matmul_precision": "highest",
        }


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(ZeroDivisionError), torch_threads(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


# --- torch.compile, whose compiler is played


@pytest.fixture
def compiler(monkeypatch):
    """Have ``torch.compile`` do this at each call of what it returns, and count."""

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    monkeypatch.setenv("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")

    def install(work):
        def compile(net, *, dynamic):
            assert dynamic is False

            def call(x):
                work(len(x))
                return net(x)

            return call

        monkeypatch.setattr(torch, "compile", compile)

    return install


def state():
    return logging.root.manager.disable, list(warnings.filters)


def test_it_is_compiled_beforehand_for_the_batches_asked_for(compiler):
    compiled, before = [], state()

    def work(batch):
        compiled.append((batch, os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")))
        warnings.warn("a word", stacklevel=1)
        logging.getLogger("torch").error("another word")

    compiler(work)
    net = Net().eval()
    session = CompiledSession(net, *SPECS, (1, 10))
    assert [batch for batch, _ in compiled] == [1, 10]
    assert all("dlcv-deploy-" in folder for _, folder in compiled)
    assert state() == before
    compiler(lambda batch: None)
    with pytest.raises(SpecError, match="asked for batches of 1 and 10, not 2"):
        session.run(images(2))
    assert session.settings["execution"] == "torch.compile"
    session.close()
    with pytest.raises(SpecError, match="closed"):
        session.run(images(1))


def test_what_it_cannot_compile_has_a_reason(compiler):
    def work(batch):
        raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: No working C++ compiler found\n\nSet X=1")

    compiler(work)
    before = state()
    with pytest.raises(SpecError, match=r"^torch\.compile: InvalidCxxCompiler: No working C\+\+ compiler found\n"):
        CompiledSession(Net(), *SPECS, (1,))
    assert state() == before


@pytest.mark.slow
def test_torch_compile_answers_alike(need):
    need("gxx")
    net = Net().eval()
    with CompiledSession(net, *SPECS, (1, 3)) as session:
        for batch in (1, 3):
            expected = TorchSession(net, *SPECS).run(images(batch))["logits"]
            np.testing.assert_allclose(session.run(images(batch))["logits"], expected, rtol=1e-4, atol=1e-5)
