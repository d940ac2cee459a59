"""What the plugin's tests share."""

import pytest

from dlcv_deploy.plugin import host


@pytest.fixture(scope="session")
def host_library(need, tmp_path_factory):
    """The kernels' own source, compiled for the host."""
    need("gxx")
    return host.compile_host(tmp_path_factory.mktemp("host") / "liblrn_host.so")
