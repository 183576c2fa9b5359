"""Tests sizes, operations and bytes of instructions against values computed by hand."""

import pytest

from experiments.compiled.hlo import Array, Module, flops


def parsed(body, *computations):
    """Returns a module whose entry computation has the given lines, with other computations in full."""
    text = "\n".join(["HloModule m, is_scheduled=true", *computations, "ENTRY %main (a: f32[]) -> f32[] {", body, "}"])
    return Module.parse(text)


def instruction(module, name):
    return module.entry.instructions[name]


def traffic(module, name):
    return module.traffic(module.entry, instruction(module, name))


def operations(module, name):
    return [count for _, count in module.products(module.entry, instruction(module, name))]


@pytest.mark.parametrize(
    ("array", "num_bytes"),
    [
        (Array("f32", (3, 5)), 60),
        (Array("bf16", ()), 2),
        (Array("pred", (7,)), 7),
        (Array("s4", (6,)), 3),
        (Array("token", ()), 0),
        (Array("bf16", (2, 3, 64), "2,1,0:T(8,128)(2,1)"), 2 * 8 * 128 * 2),  # 3 rows to 8, 64 lanes to 128
        (Array("f32", (8, 5, 2), "0,2,1:T(8,128)"), 5 * 8 * 128 * 4),  # The first dimension is the minor one.
        (Array("f32", (300,), "0:T(128)"), 384 * 4),
        (Array("f32", (), ":T(128)"), 4),
    ],
)
def test_bytes_with_the_padding_of_tiles(array, num_bytes):
    assert array.num_bytes == num_bytes


def test_memory_on_the_chip_is_no_traffic():
    assert Array("f32", (128,), "0:T(128)S(1)").traffic == 0
    assert Array("f32", (128,), "0:T(128)S(0)").traffic == 512


def test_tuples_comments_and_attributes():
    module = parsed(
        """  %p.1 = f32[4]{0} parameter(1), metadata={op_name="state['a (b)']"}
  ROOT %t = (f32[4]{0}, /*index=1*/(bf16[2,2]{1,0}, u8[0]{0})) tuple(%p.1, %x-y.2), metadata={op_name="jit(f)/t"}"""
    )
    parameter, result = module.entry.instructions.values()
    assert (parameter.number, parameter.op_name) == (1, "state['a (b)']")
    assert [array.dims for array in result.arrays] == [(4,), (2, 2), (0,)]
    assert (result.operands, result.opcode, result.op_name) == (("p.1", "x-y.2"), "tuple", "jit(f)/t")
    assert module.entry.root == "t"


INPUTS = """  %x = bf16[2,6,6,3]{3,2,1,0} parameter(0)
  %k = bf16[3,3,3,5]{3,2,1,0} parameter(1)
  %g = bf16[2,6,6,5]{3,2,1,0} parameter(2)
"""
# Along a side of 6 with a window of 3 and a padding of 1, each of 6 outputs has 3 places, and 2 at both ends.
SAME = 2 * 2 * (3 * 6 - 2) ** 2 * 3 * 5


@pytest.mark.parametrize(
    ("line", "count"),
    [
        (
            "bf16[2,6,6,5]{3,2,1,0} convolution(%x, %k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f",
            SAME,
        ),
        (
            "bf16[2,4,4,5]{3,2,1,0} convolution(%x, %k), window={size=3x3}, dim_labels=b01f_01io->b01f",
            2 * 2 * (3 * 4) ** 2 * 3 * 5,
        ),
        (
            "bf16[2,2,2,5]{3,2,1,0} convolution(%x, %k), window={size=3x3 stride=2x2}, dim_labels=b01f_01io->b01f",
            2 * 2 * (3 * 2) ** 2 * 3 * 5,
        ),
        # A dilated input has 11 places, every second one a gap: windows of 3 contain 2, 1, 2, ... elements.
        (
            "bf16[2,9,9,5]{3,2,1,0} convolution(%x, %k), window={size=3x3 lhs_dilate=2x2}, dim_labels=b01f_01io->b01f",
            2 * 2 * (5 * 2 + 4 * 1) ** 2 * 3 * 5,
        ),
        # The kernel's gradient as XLA writes it for TPUs: the sum is over the batch, and the window is the output.
        (
            "bf16[3,3,3,5]{3,2,1,0} convolution(%x, %g), window={size=6x6 pad=1_1x1_1}, dim_labels=f01b_i01o->01bf",
            SAME,
        ),
        (
            "(bf16[2,6,6,3]{3,2,1,0}, u8[0]{0}) custom-call(%g, %k), window={size=3x3 pad=1_1x1_1}, "
            'dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convBackwardInput"',
            SAME,
        ),
        (
            "(bf16[3,3,3,5]{3,2,1,0}, u8[0]{0}) custom-call(%x, %g), window={size=3x3 pad=1_1x1_1}, "
            'dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convBackwardFilter"',
            SAME,
        ),
        (
            "(bf16[2,6,6,5]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, "
            'dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convBiasActivationForward"',
            SAME,
        ),
        ("bf16[2,6,6,3]{3,2,1,0} add(%x, %x)", 0),
        ('bf16[2,6,6,3]{3,2,1,0} custom-call(%x), custom_call_target="Sharding"', 0),
    ],
)
def test_operations_of_convolutions(line, count):
    module = parsed(f"{INPUTS}  ROOT %y = {line}")
    assert flops(module.entry, instruction(module, "y")) == count


@pytest.mark.parametrize(
    "attributes",
    [
        "dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
        "convolution(%a, %b), dim_labels=bf_io->bf",
        'custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":'
        '{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}',
    ],
)
def test_operations_of_matrix_products(attributes):
    module = parsed(
        f"""  %a = f32[4,7]{{1,0}} parameter(0)
  %b = f32[7,9]{{1,0}} parameter(1)
  ROOT %y = f32[4,9]{{1,0}} {attributes}"""
    )
    assert flops(module.entry, instruction(module, "y")) == 2 * 4 * 7 * 9


FUSION = """%fused (p.0: f32[100], p.1: f32[10]) -> f32[10] {
  %p.0 = f32[100]{0} parameter(0)
  %p.1 = f32[10]{0} parameter(1)
  %b.0 = f32[100]{0} bitcast(%p.0)
  %s.0 = f32[10]{0} slice(%b.0), slice={[0:10]}
  ROOT %a.0 = f32[10]{0} add(%s.0, %p.1)
}"""
UPDATE = """%update (p.0: f32[100], p.1: f32[10]) -> f32[100] {
  %p.0 = f32[100]{0} parameter(0)
  %p.1 = f32[10]{0} parameter(1)
  %c.0 = s32[] constant(5)
  ROOT %u.0 = f32[100]{0} dynamic-update-slice(%p.0, %p.1, %c.0)
}"""
NESTED = """%outer (p.0: f32[100], p.1: f32[10]) -> f32[10] {
  %p.0 = f32[100]{0} parameter(0)
  %p.1 = f32[10]{0} parameter(1)
  ROOT %f.0 = f32[10]{0} fusion(%p.0, %p.1), kind=kLoop, calls=%fused
}"""


@pytest.mark.parametrize(
    ("line", "num_bytes"),
    [
        ("f32[10]{0} add(%small, %small)", 120),
        ("f32[10]{0} fusion(%big, %small), kind=kLoop, calls=%fused", 120),  # reads a slice of the first
        ("f32[10]{0} fusion(%big, %small), kind=kLoop, calls=%outer", 120),
        ("f32[100]{0} fusion(%big, %small), kind=kLoop, calls=%update", 80),  # in place
        ("f32[100]{0} dynamic-update-slice(%big, %small, %zero)", 80),
        ("f32[10]{0} dynamic-slice(%big, %zero), dynamic_slice_sizes={10}", 84),
        ("(f32[100]{0:T(128)S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%big)", 400),  # into memory on the chip
        ("((f32[100]{0}), f32[10]{0:S(1)}, s32[]{:S(2)}) slice-start(%big), slice={[0:10]}", 40),
        ("f32[100]{0} bitcast(%big)", 0),
        ('f32[100]{0} custom-call(%big), custom_call_target="ConcatBitcast"', 0),
    ],
)
def test_bytes_moved(line, num_bytes):
    module = parsed(
        f"""  %big = f32[100]{{0}} parameter(0)
  %small = f32[10]{{0}} parameter(1)
  %zero = s32[] constant(0)
  ROOT %y = {line}""",
        FUSION,
        UPDATE,
        NESTED,
    )
    assert traffic(module, "y") == num_bytes


def test_products_inside_fusions():
    fused = f"""%conv (x: bf16[2,6,6,3], k: bf16[3,3,3,5]) -> bf16[2,6,6,5] {{
{INPUTS.splitlines()[0]}
{INPUTS.splitlines()[1]}
  ROOT %c = bf16[2,6,6,5]{{3,2,1,0}} convolution(%x, %k), window={{size=3x3 pad=1_1x1_1}}, dim_labels=b01f_01io->b01f
}}"""
    line = "  ROOT %y = bf16[2,6,6,5]{3,2,1,0} fusion(%x, %k), kind=kOutput, calls=%conv"
    assert operations(parsed(INPUTS + line, fused), "y") == [SAME]
