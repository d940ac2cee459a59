"""A toolchain of shell scripts: each says its version and does what a test tells it to."""

from dlcv_deploy.plugin import toolchain

NVCC = """case "$1" in
--version) echo 'Cuda compilation tools, release 13.0, V13.0.88' ;;
--list-gpu-arch) printf 'compute_75\\ncompute_86\\ncompute_90\\ncompute_120\\n' ;;
esac"""
GXX = "echo 'g++ (Debian 12.2.0-14) 12.2.0'"
CMAKE = "echo 'cmake version 3.25.1'"
VERSION = """#define TRT_MAJOR_ENTERPRISE 10
#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE //!< TensorRT major version.
#define NV_TENSORRT_MINOR 14
 # define NV_TENSORRT_PATCH 1
#define NV_TENSORRT_BUILD 48
"""
VARIABLES = ("CUDA_HOME", "CUDA_PATH", "CXX", "DLCV_TENSORRT_INCLUDE", "TENSORRT_ROOT", *("CXXFLAGS", "LDFLAGS"))


def script(path, body):
    """A program that runs ``body``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def headers(folder, version=VERSION):
    """A folder that looks like TensorRT's headers."""
    folder.mkdir(parents=True)
    (folder / "NvInferVersion.h").write_text(version)
    (folder / "NvInfer.h").write_text("")
    return folder


class Bench:
    """A machine with nothing on it but what is put there."""

    def __init__(self, folder, patch):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("PATH", str(self.bin))
        patch.setattr(toolchain, "_usual_cuda", lambda: folder / "usr/local/cuda")
        patch.setattr(toolchain, "_usual_headers", lambda: (folder / "usr/include",))
        patch.setattr(toolchain, "_site_folders", lambda: [str(folder / "site/nvidia")])
        patch.setattr(toolchain, "_beside_python", lambda: folder / "python")

    def put(self, name, body):
        return script(self.bin / name, body)

    def whole(self, build="exit 1"):
        """Everything is here; CMake does ``build`` in the shell where it is asked to build into the folder $2."""
        self.put("nvcc", NVCC)
        self.put("g++", GXX)
        self.put("ninja", "exit 1")
        headers(self.folder / "usr/include")
        self.cmake(build=build)
        return self

    def cmake(self, *, prepare="", build=""):
        told = self.folder / "told"
        lines = [f"for word; do printf '%s\\n' \"$word\" >>'{told}'; done", f"/usr/bin/env >'{self.folder / 'env'}'"]
        body = [
            "case $1 in",
            f"--version) {CMAKE} ;;",
            f"-S) {'; '.join(lines)}; {prepare or ':'} ;;",
            f"--build) {build or ':'} ;;",
            "esac",
        ]
        self.put("cmake", "\n".join(body))

    @property
    def told(self):
        """The definitions that CMake was given, by name."""
        words = (self.folder / "told").read_text().splitlines()
        return dict(word[2:].split("=", 1) for word in words if word.startswith("-D"))

    @property
    def env(self):
        lines = (self.folder / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
