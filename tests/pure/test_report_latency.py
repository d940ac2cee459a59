"""What a report says of latency: times with intervals, speed, doubts, and all that was measured besides."""

import dataclasses as dc
import math

import pytest
from helpers.reports import NO_GPU, OPENVINO, PYTORCH, RTX, full, latency

from dlcv_deploy.latency.values import Latency, LatencyReport, Ratio, Validity
from dlcv_deploy.report import latency as times
from dlcv_deploy.report.document import from_json, to_json
from dlcv_deploy.report.markdown import markdown
from dlcv_deploy.report.terminal import latency_table, table

UNTIMED = dc.replace(latency(), ratios=())


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (8.06, "8.1x faster"),
        (1.05, "1.1x faster"),
        (1.0, "as fast"),
        (0.96, "as fast"),
        (0.5, "2.0x slower"),
        (0.0, "slower beyond measure"),
    ],
)
def test_speed_in_words(ratio, said):
    assert times.speed_words(ratio) == said


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ((8.06, 7.9, 8.2), "8.1x faster (7.90 to 8.20)"),
        ((0.5, 0.4, 0.8), "2.0x slower (1.25 to 2.50)"),
        ((1.01, 0.98, 1.04), "as fast (0.98 to 1.04)"),
        ((1.1, 0.9, 1.3), "not told apart (0.90 to 1.30)"),
        ((1.02, 1.01, 1.03), "as fast (1.01 to 1.03)"),
        ((math.nan, 1.0, 1.0), ""),
        ((2.0, math.nan, 3.0), "2.0x faster"),
    ],
)
def test_a_ratio_has_its_interval(figures, said):
    assert times.ratio_words(Ratio(OPENVINO, PYTORCH, 1, *figures)) == said


def test_speed_is_the_measured_ratio_else_that_of_p50_at_the_same_batch_size():
    rows = latency().rows
    assert times.speed(latency(), rows[1]) == "8.1x faster (7.96 to 8.25)"
    assert times.speed(latency(), rows[0]) == ""
    assert times.speed(UNTIMED, rows[1]) == "8.1x faster"
    assert times.speedup(UNTIMED, rows[1]) == 4.0512 / 0.5
    assert times.speedup(UNTIMED, rows[4]) == 8.0
    assert times.speedup(UNTIMED, rows[2]) is None
    assert times.speedup(dc.replace(UNTIMED, rows=rows[1:3]), rows[1]) is None


def test_every_percentile_of_a_row():
    rows = times.latency_rows(latency())
    assert rows[0] == (
        *(PYTORCH, "1", "4.051", "3.970 to 4.132", "4.601", "5.151", "6.250", "6.800", "7.349", "4.200"),
        *("238", "640", "-"),
    )
    assert rows[2] == (RTX, f"not run at batch 1: {NO_GPU}")
    assert all(len(found) in (2, len(times.LATENCY_HEAD)) for found in rows)
    assert times.latency_rows(LatencyReport("a CPU", 2, (Latency(RTX, 1),)))[0][2:] == ("-",) * 9 + ("0", "-")


def test_a_run_that_cannot_be_trusted_says_so_first():
    said = (
        "NOT TRUSTWORTHY: the governor is powersave, which changes clocks between calls. other processes took 35 % of"
        " the CPU."
    )
    assert times.distrust(latency()) == said
    assert latency_table(latency()).startswith("NOT TRUSTWORTHY: ")
    assert f"## Latency\n\n> **{said}**" in markdown(full())
    assert "NOT TRUSTWORTHY: the governor" in table(full())
    sound = dc.replace(latency(), validity=Validity())
    assert times.distrust(sound) == ""
    assert "TRUSTWORTHY" not in latency_table(sound) + markdown(dc.replace(full(), latency=sound))


def test_the_note_says_what_did_not_settle_and_what_has_no_upper_end():
    taken = (
        "Host to host on Some CPU @ 2.0GHz (AVX512-VNNI, AMX-INT8), 2 cores; sessions interleaved in one run. Speed"
        " compares p50 with the original's."
    )
    for report in (latency(), from_json(to_json(full())).latency):
        assert times.latency_note(report) == (
            f"{taken} Too few calls to say how high p99 and p99.9 may be. Time ran out before the interval of the"
            " median of PyTorch fp32 at batch 10 was as narrow as asked."
        )
    assert times.latency_note(dc.replace(latency(), rows=latency().rows[1:2])) == taken
    assert "p99.9 may be. Time ran out before the interval of any median was" in times.latency_note(
        dc.replace(latency(), rows=latency().rows[3:4])
    )


def test_what_was_measured_besides():
    found = {head: rows for head, rows, _ in times.tables(latency())}
    assert found[times.DEVICE_HEAD] == ((OPENVINO, "10", "1.875", "0.250", "1.500", "0.125", "0.062"),)
    assert found[times.COLD_HEAD] == (
        (PYTORCH, "1,520.0", "12.50", "30.25", "412.0 MiB", "96.0 MiB"),
        (OPENVINO, "310.0", "85.50", "1.250", "180.0 MiB", "24.0 MiB"),
        (RTX, f"not run: {NO_GPU}"),
    )
    assert found[times.THREADS_HEAD][1] == (OPENVINO, "2", "0.500", "0.750", "1,990")
    assert found[times.CLIENTS_HEAD][1] == (OPENVINO, "4", "1.900", "3.500", "2,105")
    assert found[times.LOAD_HEAD][1] == (OPENVINO, "2,500", "2,090", "250.0", "480.0", "no")
    assert found[times.PARTS_HEAD][2] == (OPENVINO, "decode", "1.500")
    assert times.tables(dc.replace(latency(), rows=(), cold=(), thread_sweep=(), clients=(), load=(), parts=())) == ()
    assert times.fact_rows(latency())[1] == ("load", "1.42 on 2 cores")
    assert times.setting_rows(latency())[1] == (OPENVINO, "PERFORMANCE_HINT", "LATENCY")


def test_all_of_it_is_in_bench_and_on_the_page():
    text, page = " ".join(latency_table(latency()).split()), markdown(full())
    for head, rows, note in times.tables(latency()):
        assert note in text
        assert note in page
        assert " | ".join(head[1:]) in page
        assert all(cell in text and cell in page for found in rows for cell in found)
