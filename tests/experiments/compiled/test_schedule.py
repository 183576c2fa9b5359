"""Tests starts and ends of exchanges, sums of a schedule and the time of a step against values computed by hand."""

from functools import partial

import pytest

from experiments.compiled.schedule import Collective, Rates, read_schedule, step_seconds

# A forward product, three backward products (2 * 10 * 10 * 10 operations each) and three exchanges: an asynchronous
# one, a pair that XLA marks as synchronous, and a synchronous one. Reading and writing a square moves 1,200 bytes.
PRODUCT = "f32[10,10]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="
PROGRAM = f"""HloModule m, is_scheduled=true

%body (s: f32[10,10]) -> f32[10,10] {{
  %s = f32[10,10]{{1,0}} parameter(0)
  %a = f32[10,10]{{1,0}} copy(%s)
  ROOT %inner = {PRODUCT}"jit(f)/while/body/conv2/dot"}}
}}

ENTRY %main (a: f32[10,10]) -> f32[10,10] {{
  %a = f32[10,10]{{1,0}} parameter(0), metadata={{op_name="flat_args[0]"}}
  %big = f32[1000]{{0}} parameter(1), metadata={{op_name="flat_args[1]"}}
  %half = f32[20]{{0}} parameter(2)
  %part = f32[30]{{0}} parameter(3)
  %forward = {PRODUCT}"jit(f)/jvp(Net)/conv1/dot"}}
  %first = {PRODUCT}"jit(f)/transpose(jvp(Net))/conv1/dot"}}
  %start.1 = ((f32[10,10]{{1,0}}), f32[10,10]{{1,0}}) all-reduce-start(%first), backend_config={{"is_sync":false}}
  %second = {PRODUCT}"jit(f)/transpose(jvp(Net))/conv1/dot"}}
  %done.1 = f32[10,10]{{1,0}} all-reduce-done(%start.1)
  %start.2 = ((f32[20]{{0}}), f32[20]{{0}}) all-reduce-start(%half), backend_config={{"is_sync":true}}
  %done.2 = f32[20]{{0}} all-reduce-done(%start.2)
  %third = {PRODUCT}"jit(f)/transpose(jvp(Net))/conv1/dot"}}
  %sum = f32[30]{{0}} all-reduce(%part), metadata={{op_name="jit(f)/psum"}}
  %loop = f32[10,10]{{1,0}} while(%third), body=%body, backend_config={{"known_trip_count":{{"n":"4"}}}}
  ROOT %norm = f32[1000]{{0}} negate(%big), metadata={{op_name="jit(f)/neg"}}
}}
"""
RATES = Rates(flops=1000.0, bandwidth=1e9)  # A product takes 2 seconds; bytes take almost no time.


@pytest.fixture(scope="module")
def schedule():
    return read_schedule(PROGRAM, RATES, ["conv1", "conv2"], ["x", "momentum/fc6"])


def test_sums(schedule):
    assert schedule.flops == 2000 * (4 + 4)  # The loop has four iterations.
    assert schedule.num_bytes == 1200 * 4 + 4 * (1200 + 800) + 8000
    assert schedule.backward_products == 3
    assert schedule.arithmetic_seconds == pytest.approx(16)
    assert schedule.bound_seconds == pytest.approx(16, rel=1e-4)
    assert schedule.exchanged_bytes == 400 + 80 + 120


def test_exchanges(schedule):
    first, second, third = schedule.collectives
    assert [one.name for one in schedule.collectives] == ["start.1", "start.2", "sum"]
    assert {one.kind for one in schedule.collectives} == {"all-reduce"}
    assert [one.num_bytes for one in schedule.collectives] == [400, 80, 120]
    assert [one.asynchronous for one in schedule.collectives] == [True, False, False]
    assert [(one.start_product, one.end_product) for one in schedule.collectives] == [(1, 2), (2, 2), (3, 3)]
    assert [one.before_backward_end for one in schedule.collectives] == [True, True, False]
    assert [one.flops_between for one in schedule.collectives] == [2000, 0, 0]
    assert (first.start_seconds, first.end_seconds) == pytest.approx((4, 6), rel=1e-4)
    assert (second.start_seconds, third.start_seconds) == pytest.approx((6, 8), rel=1e-4)
    assert schedule.early_share == pytest.approx(480 / 600)


def test_the_largest_instructions(schedule):
    shown = [(one["name"], one["bytes"], one["layer"], one["times"]) for one in schedule.largest[:3]]
    assert shown == [
        ("norm", 8000, "momentum/fc6: neg", 1),
        ("inner", 4800, "conv2, forward: dot", 4),
        ("a", 3200, "copy", 4),
    ]
    assert "conv1, backward: dot" in {one["layer"] for one in schedule.largest}


def test_exchanges_inside_fusions_and_loops():
    program = """%sum (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} all-reduce(%p)
}

%body (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  %begin = ((f32[8]{0}), f32[8]{0}, u32[]) async-start(%s), calls=%sum
  ROOT %end = f32[8]{0} async-done(%begin)
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %f = f32[8]{0} fusion(%a), kind=kCustom, calls=%sum
  ROOT %w = f32[8]{0} while(%f), body=%body, backend_config={"known_trip_count":{"n":"3"}}
}
"""
    found = read_schedule(program, RATES).collectives
    assert [(one.name, one.times, one.asynchronous, one.num_bytes) for one in found] == [
        ("f", 1, False, 32),
        ("begin", 3, True, 32),
    ]


def test_an_exchange_in_parts_inside_fusions_that_compute():
    """In libtpu's form, buffers that the parts pass to each other do not count as traffic."""
    program = """%begin (g: f32[8]) -> (f32[8], u32[]) {
  %g = f32[8]{0} parameter(0)
  %r = f32[8]{0} all-reduce(%g)
  %u = u32[] constant(0)
  ROOT %t = (f32[8]{0}, u32[]) tuple(%r, %u)
}

%part (s: f32[8], u: u32[], a: f32[10,10]) -> (f32[10,10], f32[8], u32[]) {
  %s = f32[8]{0} parameter(0)
  %u = u32[] parameter(1)
  %a = f32[10,10]{1,0} parameter(2)
  %r = f32[8]{0} all-reduce(%s)
  %p = f32[10,10]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="transpose(jvp(N))/dot"}
  ROOT %t = (f32[10,10]{1,0}, f32[8]{0}, u32[]) tuple(%p, %r, %u)
}

%finish (s: f32[8], u: u32[]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  %u = u32[] parameter(1)
  ROOT %r = f32[8]{0} all-reduce(%s)
}

ENTRY %main (a: f32[10,10], g: f32[8]) -> f32[8] {
  %a = f32[10,10]{1,0} parameter(0)
  %g = f32[8]{0} parameter(1)
  %async-collective-start.1 = (f32[8]{0}, u32[]) fusion(%g), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%begin
  %s.1 = f32[8]{0} get-tuple-element(%async-collective-start.1), index=0
  %u.1 = u32[] get-tuple-element(%async-collective-start.1), index=1
  %f = (f32[10,10]{1,0}, f32[8]{0}, u32[]) fusion(%s.1, %u.1, %a), kind=kOutput, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}, calls=%part
  %s.2 = f32[8]{0} get-tuple-element(%f), index=1
  %u.2 = u32[] get-tuple-element(%f), index=2
  ROOT %async-collective-done.1 = f32[8]{0} fusion(%s.2, %u.2), kind=kCustom, output_to_operand_aliasing={{}: (0, {})}, calls=%finish
}
"""  # noqa: E501
    schedule = read_schedule(program, RATES)
    (found,) = schedule.collectives
    assert (found.kind, found.num_bytes, found.asynchronous) == ("all-reduce", 32, True)
    assert (found.start_product, found.end_product, found.flops_between) == (0, 1, 2000)
    assert found.before_backward_end
    assert (schedule.flops, schedule.num_bytes, schedule.backward_products) == (2000, 800, 1)
    assert [(one["name"], one["bytes"]) for one in schedule.largest[:1]] == [("f", 800)]


def exchange(start, end, num_bytes, times=1):
    return Collective("", "all-reduce", num_bytes, times, start != end, 0, 0, True, 0, start, end)


@pytest.mark.parametrize(
    ("collectives", "seconds"),
    [
        ([], 10.0),
        ([exchange(2, 6, 3)], 10.0),  # runs beside other work
        ([exchange(2, 6, 5)], 11.0),
        ([exchange(4, 4, 5)], 15.0),  # synchronous
        ([exchange(4, 4, 5, times=2)], 20.0),
        (
            [exchange(1, 5, 3), exchange(2, 5, 3)],
            12.0,
        ),  # One after the other they last until 7, which is 2 after the end of the second.
        ([exchange(8, 10, 3)], 11.0),
    ],
)
def test_time_of_a_step(collectives, seconds):
    assert step_seconds(collectives, 10.0, 1.0, float) == pytest.approx(seconds)


def test_a_slower_step_waits_less():
    assert step_seconds([exchange(2, 6, 6)], 10.0, 1.0, float) == pytest.approx(12)
    assert step_seconds([exchange(2, 6, 6)], 10.0, 2.0, float) == pytest.approx(20)
    assert step_seconds([exchange(2, 6, 6)], 10.0, 1.0, partial(float.__mul__, 0.5)) == pytest.approx(10)
