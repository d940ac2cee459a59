"""What speaks against a run: texts of a system's files, looks at a machine, and what is said of them."""

from types import SimpleNamespace

import pytest

from dlcv_deploy.latency import gpu, machine
from dlcv_deploy.latency.gpu import Gpu, GpuLook
from dlcv_deploy.latency.machine import Look, Watch
from dlcv_deploy.latency.validity import Series, judge, percent
from dlcv_deploy.latency.values import Latency, Quantile

STAT = """cpu  9 9 9 9 9 9 9 9 9 9
cpu0 100 10 20 5000 7 3 2 40 50 0
cpu1 200 0 0 5000 0 0 0 0 0 0
cpu10 900 0 0 5000 0 0 0 0 0 0
intr 1 2 3
"""
CPU = "/sys/devices/system/cpu/cpu"
FILES = {
    "/proc/stat": STAT,
    "/proc/loadavg": "0.25 0.39 0.80 2/101 9822\n",
    "/proc/pressure/memory": "some avg10=0.00 avg60=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 total=5\n",
    "/proc/self/cgroup": "0::/box\n",
    "/sys/fs/cgroup/box/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 4\n",
    f"{CPU}0/cpufreq/scaling_governor": "powersave\n",
    f"{CPU}1/cpufreq/scaling_governor": "powersave\n",
    f"{CPU}0/cpufreq/scaling_cur_freq": "1200000\n",
    f"{CPU}1/cpufreq/scaling_cur_freq": "3400000\n",
    f"{CPU}0/thermal_throttle/core_throttle_count": "2\n",
    f"{CPU}1/thermal_throttle/core_throttle_count": "1\n",
}


def test_a_look_reads_what_there_is():
    watch = Watch(read=FILES.get, cpus=(0, 1), now=lambda: 5.0, own=lambda: 2.0)
    watch.look()
    assert machine.cpu_seconds(STAT, (0, 1), ticks=100) == (3.35, 0.4)
    (look,) = watch.looks
    assert (look.load, look.governors, look.clock_mhz, look.heat_stops) == (0.25, ("powersave",), 3400.0, 3)
    assert (look.at_s, look.own_s, look.quota_stops, look.waits_s) == (5.0, 2.0, 4, 2.5)


def test_a_look_where_there_is_nothing_to_read():
    watch = Watch(read={}.get, cpus=(0,), now=lambda: 0.0, own=lambda: 0.0)
    watch.look()
    (look,) = watch.looks
    assert (look.busy_s, look.stolen_s, look.clock_mhz, look.heat_stops, look.quota_stops, look.waits_s) == (None,) * 6


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({"/sys/fs/cgroup/cpu.stat": "nr_throttled 7"}, 7),
        ({"/proc/self/cgroup": "4:cpu,cpuacct:/a\n", "/sys/fs/cgroup/cpu/a/cpu.stat": "nr_throttled 3"}, 3),
        ({"/sys/fs/cgroup/cpu.stat": "usage_usec 7"}, None),
    ],
)
def test_quotas_of_both_versions_of_control_groups(files, stops):
    assert machine.quota_stops(files.get) == stops


def test_clocks_without_cpufreq():
    assert machine.clock_mhz([], "cpu MHz\t\t: 2596.140\ncpu MHz\t\t: 2600.5\n") == 2600.5
    assert machine.clock_mhz([], "") is None


def seen(*looks, gpu=None, cpus=(0, 1)):
    watch = Watch(gpu, read={}.get, cpus=cpus)
    watch.looks = list(looks)
    return watch


QUIET = Look(0.0, 1.0, 50.0, 2.0, 0.1, ("performance",), 3000.0, 5, 6, 1.0)
LATER = Look(10.0, 15.0, 64.5, 2.0, 2.0, ("performance",), 2950.0, 5, 6, 1.0)


def against(later, *more, gpu=None, rows=(), series=()):
    return judge(seen(QUIET, later, *more, gpu=gpu), rows, series, 0.01)


def change(**fields):
    import dataclasses as dc

    return dc.replace(LATER, **fields)


def test_a_quiet_machine_is_trusted():
    found = against(LATER)
    assert found.trustworthy
    assert found.facts == {
        "load": "0.10 on 2 cores before the run",
        "other processes": "used 2.5 % of the time of 2 cores",
        "hypervisor": "took 0 % of the time of 2 cores",
        "governor": "performance",
        "clock": "2950 to 3000 MHz",
        "throttling": "none",
        "quota": "stopped nothing",
        "memory": "processes waited for it 0 % of the time",
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"busy_s": 65.2}, "other processes used 6 % of the time of 2 cores (5 % is the limit): end them"),
        ({"stolen_s": 2.5}, "the hypervisor took 2.5 % of the time of 2 cores (1 % is the limit): measure on"),
        ({"clock_mhz": 1500.0}, "clock went from 1500 to 3000 MHz under the governor performance (10 % is the limit)"),
        ({"heat_stops": 8}, "the CPU throttled itself for heat 3 times: cool it"),
        ({"quota_stops": 7}, "the container's CPU quota stopped it 1 times: give it whole CPUs"),
        ({"waits_s": 1.5}, "processes waited for memory 5 % of the time (1 % is the limit): free memory"),
    ],
)
def test_each_thing_that_speaks_against_a_run(fields, said):
    (reason,) = against(change(**fields)).reasons
    assert said in reason


def test_the_load_decides_where_others_cannot_be_told_apart():
    idle, busy = (Look(0.0, 0.0, load=load) for load in (1.5, 2.5))
    end = Look(9.0, 9.0)
    assert judge(seen(idle, end), (), (), 0.01).trustworthy
    (reason,) = judge(seen(busy, end), (), (), 0.01).reasons
    assert reason.startswith("the load was 2.50 on 2 cores before the run: end what else runs")


def row(p50=1.0, low=0.995, high=1.005, p90=1.1, settled=True):
    points = (Quantile(50, p50, low, high), Quantile(90, p90, p90, p90))
    return Latency("int8", 1, 60, p50, points, 1.0, settled)


def test_what_times_say_of_themselves():
    steady = Series("int8", 1, 1.04, True)
    assert against(LATER, rows=[row()], series=[steady]).trustworthy
    (reason,) = against(LATER, rows=[row(high=1.045, settled=False)]).reasons
    assert reason.startswith("1 of 1 medians are not settled; that of int8 at batch 1 is known to 2.5 %, and 1 % was")
    (reason,) = against(LATER, rows=[row(p90=1.5)]).reasons
    assert reason.startswith("p90 is 1.50 times p50 for int8 at batch 1 (1.2 is the limit)")
    (reason,) = against(LATER, series=[steady, Series("fp32", 10, 0.9, False)]).reasons
    assert reason.startswith("fp32 at batch 10 was 10 % faster in the later half of the run (5 % is the limit)")
    assert against(LATER, series=[Series("a", 10, 1.0, False)]).facts["warm-up"].endswith("not stable yet at batch 10")


def graphics(clock=1980, slowed=1, others=()):
    return GpuLook("H100", clock, 55, slowed, others)


class Nvml:
    """As much of ``pynvml`` as is asked."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def __init__(self, why=""):
        self.why = why

    def nvmlInit(self):
        if self.why:
            raise self.NVMLError(self.why)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return uuid

    def nvmlDeviceGetName(self, handle):
        return f"GPU {handle}"

    def nvmlDeviceGetClockInfo(self, handle, kind):
        return 1980

    def nvmlDeviceGetTemperature(self, handle, kind):
        if self.why:
            raise self.NVMLError(self.why)
        return 55

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        return 0x41

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        import os

        return [SimpleNamespace(pid=os.getpid()), SimpleNamespace(pid=1)]


@pytest.mark.parametrize(("visible", "name"), [("", "GPU 0"), ("3,1", "GPU 3"), ("GPU-ab", "GPU GPU-ab")])
def test_the_gpu_is_the_one_that_cuda_calls_the_first(visible, name):
    assert Gpu(Nvml(), visible).look() == GpuLook(name, 1980, 55, 0x41, (1,))


def test_a_gpu_that_says_nothing(monkeypatch):
    silent = Gpu(nvml := Nvml())
    nvml.why = "lost"
    assert silent.look() is None
    monkeypatch.setattr(gpu.importlib, "import_module", lambda name: nvml)
    assert gpu.first_gpu() == "not looked at (NVML: lost)"

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(gpu.importlib, "import_module", absent)
    assert gpu.first_gpu() == "not looked at (no nvidia-ml-py)"
    assert against(LATER, gpu=gpu.first_gpu()).facts["GPU"] == "not looked at (no nvidia-ml-py)"


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (graphics(), ""),
        (graphics(slowed=0x41), "the GPU's clock was held down by heat (by the hardware): cool it"),
        (graphics(clock=1000), "the GPU's clock went from 1000 to 1980 MHz (10 % is the limit): sudo nvidia-smi"),
        (graphics(others=(7, 9)), "2 other processes computed on the GPU (7, 9): end them"),
    ],
)
def test_what_a_gpu_says(look, said):
    found = against(change(gpu=graphics()), change(gpu=look), gpu=Gpu(Nvml()))
    assert found.facts["GPU"].startswith("H100, ")
    assert (said in found.reasons[0]) if said else found.trustworthy


def test_percents_have_two_digits():
    assert [percent(v) for v in (0.0123, 0.05, 0.004, 0.0996, 0.8, 1.2)] == [
        "1.2 %", "5 %", "0.4 %", "10 %", "80 %", "120 %",
    ]  # fmt: skip
