"""The parts of the harness that need no server: what they count, and what they refuse to call a figure."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bench import report
from bench.__main__ import main
from bench.authority import require_only_active
from bench.cost import echo_cost
from bench.cpu import tree_cpu_ns
from bench.echo import Transport, echo_callers, echo_server
from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds, interleaved
from bench.load import Target, framed, run_load, run_one_at_a_time
from bench.process import free_port
from bench.rows import ROWS
from bench.rows.interceptor import require_all_hits

needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (nghttp2-client)")

_BURN = "import time\nwhile time.process_time() < {seconds}: pass\nprint('ready', flush=True)\ninput()"
_BURN_IN_CHILD = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {_BURN.format(seconds=0.2)!r}], input=b"\\n", stdout=subprocess.DEVNULL)
print("ready", flush=True)
input()
"""


@contextmanager
def _script(text: str) -> Iterator[int]:
    command = [sys.executable, "-c", text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def test_rounds_are_interleaved_so_that_a_drifting_machine_favours_neither_side() -> None:
    order: list[str] = []

    def side(name: str) -> str:
        order.append(name)
        return name

    pairs = interleaved(4, lambda _: side("A"), lambda _: side("B"))

    assert "".join(order) == "ABBAABBA"
    assert pairs == [("A", "B")] * 4


def test_both_sides_are_given_the_same_round_number() -> None:
    assert interleaved(3, lambda number: number, lambda number: number) == [(0, 0), (1, 1), (2, 2)]


def test_figure_is_the_median_and_keeps_its_spread() -> None:
    figure = figure_of_rounds("x", [9.0, 1.0, 2.0], "ratio", Goal("<=", 2), {"floor": 3})

    assert (figure.value, figure.spread, figure.met) == (2.0, (1.0, 9.0), True)
    assert figure.baseline == {"floor": 3, "rounds": 3}


def test_no_rounds_is_no_figure() -> None:
    with pytest.raises(MeasurementError):
        figure_of_rounds("x", [], "ratio", Goal("<=", 2), {})


@pytest.mark.parametrize(
    ("goal", "below", "at", "above"),
    [(Goal(">=", 0.8), False, True, True), (Goal("<=", 0.8), True, True, False)],
)
def test_goal_is_met_at_its_bound(goal: Goal, below: bool, at: bool, above: bool) -> None:
    assert (goal.met_by(0.79), goal.met_by(0.8), goal.met_by(0.81)) == (below, at, above)


def test_cpu_of_a_process_is_what_the_kernel_says_it_used() -> None:
    with _script(_BURN.format(seconds=0.2)) as pid:
        kernel = psutil.Process(pid).cpu_times()

        # The kernel's own sums are in ticks of 10 ms, each rounded down.
        assert tree_cpu_ns(pid) / 1e9 == pytest.approx(kernel.user + kernel.system, abs=0.03)
        assert tree_cpu_ns(pid) >= 0.2e9


def test_cpu_of_children_that_have_ended_still_counts() -> None:
    with _script(_BURN_IN_CHILD) as pid:
        assert tree_cpu_ns(pid) >= 0.19e9


def test_cpu_of_the_process_left_out_is_left_out() -> None:
    with _script(_BURN.format(seconds=0.2)) as pid:
        assert tree_cpu_ns(pid, without=pid) == 0


def test_cpu_of_a_process_that_is_gone_is_an_error() -> None:
    with _script("print('ready', flush=True)\ninput()") as pid:
        pass
    with pytest.raises(psutil.NoSuchProcess):
        tree_cpu_ns(pid)


def test_message_is_framed_as_grpc_has_it() -> None:
    assert framed(b"abc") == b"\x00\x00\x00\x00\x03abc"


@needs_h2load
@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_echo_serves_exactly_what_is_sent_and_costs_something(transport: Transport) -> None:
    with echo_server(transport) as echo:
        cost = echo_cost(echo, echo_callers(2, "x"), calls_each=25, streams=2)

        assert echo.calls() == 50
        assert cost.server_us > 0
        assert cost.postgres_us == 0


@needs_h2load
def test_one_at_a_time_logs_every_call() -> None:
    with echo_server("native") as echo:
        result = run_one_at_a_time(echo.target, echo_callers(1, "x")[0], calls=20)

    assert len(result.latencies_us) == result.calls == 20
    assert min(result.latencies_us) > 0


@needs_h2load
def test_load_that_reaches_nobody_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="did not get 2 answers"):
        run_load(Target(free_port(), "/x.Y/Z"), echo_callers(1, "x"), calls_each=2, streams=1)


@needs_h2load
def test_method_that_is_not_served_is_no_echo() -> None:
    """h2load reports UNIMPLEMENTED as a success; the count does not."""
    with echo_server("native") as echo:
        result = run_load(
            Target(echo.port, "/bench.v1.EchoService/Nothing"), echo_callers(1, "x"), calls_each=5, streams=1
        )

        assert result.calls == 5
        assert echo.calls() == 0


@pytest.mark.parametrize(
    "after",
    [
        {"active": 14},
        {"active": 16},
        {"active": 15, "unknown": 1},
        {"active": 5, "audience_mismatch": 10},
        {"active": 5},
    ],
)
def test_any_answer_but_active_or_any_other_count_is_no_figure(after: dict[str, int]) -> None:
    with pytest.raises(MeasurementError):
        require_only_active({"active": 5}, after, 10)


def test_all_active_and_all_counted_is_a_figure() -> None:
    require_only_active({"active": 5, "unknown": 3}, {"active": 15, "unknown": 3}, 10)


_BEFORE = {"hits": 3, "misses": 1, "joins": 0, "calls": 4}


@pytest.mark.parametrize(
    "counted",
    [
        {"hits": 9, "misses": 1, "joins": 0, "calls": 10},
        {"hits": 10, "misses": 1, "joins": 0, "calls": 10},
        {"hits": 10, "misses": 0, "joins": 1, "calls": 10},
        {"hits": 10, "misses": 0, "joins": 0, "calls": 9},
    ],
)
def test_any_call_that_was_no_hit_or_did_not_arrive_is_no_figure(counted: dict[str, int]) -> None:
    with pytest.raises(MeasurementError):
        require_all_hits(_BEFORE, {name: _BEFORE[name] + counted[name] for name in _BEFORE}, 10)


def test_all_hits_are_a_figure() -> None:
    require_all_hits(_BEFORE, {"hits": 13, "misses": 1, "joins": 0, "calls": 14}, 10)


def test_json_has_the_five_keys_of_every_figure(tmp_path: Path) -> None:
    figure = Figure("x", 0.51234567, "ratio", Goal(">=", 0.5), {"echo_us": 60.123})
    report.write_json([figure], tmp_path / "new" / "bench.json")

    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == [
        {"name": "x", "value": 0.5123, "unit": "ratio", "goal": ">= 0.5", "baseline": {"echo_us": 60.12}}
    ]


def test_table_says_when_a_goal_is_missed() -> None:
    missed = Figure("x", 0.4, "ratio", Goal(">=", 0.5), {})

    assert "MISSED" in report.line(missed)
    assert "MISSED" not in report.line(Figure("x", 0.5, "ratio", Goal(">=", 0.5), {}))


def test_missing_h2load_is_said_with_how_to_get_it_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main(["--rounds", "1", "--output", str(tmp_path / "bench.json")]) == 1
    assert "apt-get install nghttp2-client" in capsys.readouterr().err
    assert json.loads((tmp_path / "bench.json").read_text()) == []


def test_every_figure_has_one_row() -> None:
    names = [name for row in ROWS for name in row.names]

    assert len(names) == len(set(names))
