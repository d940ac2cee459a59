"""What a newcomer relies on: the README's commands, the wheel's contents, the pins."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_two_commands_stand_first():
    first = re.search(r"^```\w*\n(.*?)```", README, re.S | re.M)
    assert first is not None
    commands = [line.split("#")[0].strip() for line in first[1].splitlines() if line.strip()]
    assert commands[-2:] == ["make demo", "make test"]


def test_make_knows_the_commands_of_the_readme():
    for target in set(re.findall(r"^\s*make (\w+)", README, re.M)):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_command_lines_of_the_readme_parse():
    """Every dlcv-deploy command shown is one that the tool understands, options and all."""
    import click

    from dlcv_deploy.cli import cli

    shown = re.findall(r"^\s*(?:\$ )?dlcv-deploy ((?:[^\\\n#]|\\\n)+)", README, re.M)
    assert len(shown) >= 6
    for line in shown:
        words = line.replace("\\\n", " ").split()
        if words[0] not in cli.commands:
            pytest.fail(f"the README shows an unknown command: dlcv-deploy {line}")
        command = cli.commands[words[0]]
        with command.make_context(words[0], list(words[1:])) as context:
            assert isinstance(context, click.Context)


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for name in files:
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.split("/")[0] for name in names}
    assert top == {"dlcv_deploy", "dlcv_deploy-0.1.0.dist-info"}
    for expected in (
        "dlcv_deploy/py.typed",
        "dlcv_deploy/cli.py",
        "dlcv_deploy/models/resnet.py",
        "dlcv_deploy/models/labels/imagenet.txt",
        "dlcv_deploy/models/importers/layouts.py",
        "dlcv_deploy/models/own/factory.py",
        "dlcv_deploy/models/weights/resnet20.safetensors",
        "dlcv_deploy/models/weights/alexnet-cifar10.safetensors",
        "dlcv_deploy/models/weights/googlenet-cifar10.safetensors",
        "dlcv_deploy/calibration/imagenet.txt",
        "dlcv_deploy/calibration/tables/resnet20.json",
        "dlcv_deploy/backends/tensorrt_rtx.py",
        "dlcv_deploy/messages.json",
        "dlcv_deploy/runtime/engine.py",
        "dlcv_deploy/triton/serve.py",
        "dlcv_deploy/cpp/CMakeLists.txt",
        "dlcv_deploy/cpp/cmake/dlcvConfig.cmake.in",
        "dlcv_deploy/cpp/include/dlcv/engine.hpp",
        "dlcv_deploy/cpp/src/engine.cpp",
        "dlcv_deploy/plugin/csrc/CMakeLists.txt",
        "dlcv_deploy/plugin/csrc/lrn_kernel.cu",
        "dlcv_deploy/plugin/csrc/lrn_plugin.cpp",
    ):
        assert expected in names
    assert not [n for n in names if "test" in n]
    assert wheel.stat().st_size < 14_000_000  # three sets of weights of up to 6 MB


def test_pins_agree_with_the_ranges():
    from packaging.requirements import Requirement
    from packaging.version import Version

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|\w+) = \[(.*?)\]$", text.split("[project.scripts]")[0], re.M | re.S)
    for requirement in (Requirement(r) for body in lists for r in re.findall(r'"([^"]+)"', body) if ">=" in r):
        if requirement.name in pins:
            assert Version(pins[requirement.name]) in requirement.specifier
    assert pins["torch"] == "2.13.0"


def test_the_project_speaks_of_itself_alone():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    for name in files:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".txt", ".yaml", ".json", ""}
            and path.is_file()
            and name != "LICENSE"
        ):
            text = path.read_text(errors="ignore")
            if path != Path(__file__):
                assert not re.search(r"/work/|/root/|farm-|pypi\.nvidia", text), name
