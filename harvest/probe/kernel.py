"""The fold as one Triton kernel, which a CUDA graph can capture: a fixed grid, nothing allocated, nothing waited for.

A program has one segment and one block of neurons. It takes the segment's tokens a block at a time, in registers: fp32
sums around the block's own fp32 mean, merged into the slot's fp64 moments by Chan's formula, as fold.cpp does. A slot
has at most one segment, so no program meets another's numbers, nothing is atomic and every run gives the same bits.

Axes: N tokens of a block, F neurons of a block.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

INTERPRETED = triton.knobs.runtime.interpret
# Triton's own interpreter of kernels, on a CPU


if INTERPRETED:
    # the interpreter knows no libdevice

    @triton.jit
    def _exp(x):
        return tl.exp(x)

    @triton.jit
    def _tanh(x):
        return 1 - tl.div_rn(2.0, tl.exp(2 * x) + 1)

    @triton.jit
    def _erf(x):
        return tl.erf(x)

else:
    # what expf, tanhf and erff are in CUDA C, in which the stock modules are written; tl.exp has fewer right bits

    @triton.jit
    def _exp(x):
        return libdevice.exp(x)

    @triton.jit
    def _tanh(x):
        return libdevice.tanh(x)

    @triton.jit
    def _erf(x):
        return libdevice.erf(x)


@triton.jit
def _activate(gate, KIND: tl.constexpr):
    """The activation of the gates in fp32, unrounded; "given" are activations already."""
    # the compiler reads past a return, but not the branches that a constant closes
    if KIND == "silu":
        x = tl.div_rn(gate, 1 + _exp(-gate))
    elif KIND == "gelu":
        x = gate * 0.5 * (1 + _erf(gate * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        x = 0.5 * gate * (1 + _tanh(0.7978845608028654 * (gate + 0.044715 * (gate * gate * gate))))
    else:
        tl.static_assert(KIND == "given")
        x = gate
    return x


@triton.jit
def _activations(rows, stride, product, token, column, mask, width, KIND: tl.constexpr, FUSED: tl.constexpr):
    """act(gate) in fp32, as the model's dtype rounds it, 0 where masked; FUSED: its product with up is written too."""
    at = token.to(tl.int64) * stride + column
    gate = tl.load(rows + at, mask, other=0.0)
    rounded = _activate(gate.to(tl.float32), KIND).to(gate.dtype)
    if FUSED:
        up = tl.load(rows + at + width, mask, other=0.0).to(tl.float32)
        there = product + token.to(tl.int64) * width + column
        tl.store(there, (rounded.to(tl.float32) * up).to(gate.dtype), mask)
    return rounded.to(tl.float32)


@triton.jit
def _merge(x_NF, row_N1, number, before, mean_F, m2_F, low_F, high_F, positive_F, peak_F):
    """The state of a slot after `number` more activations, of which `before` were folded already."""
    real_N1 = row_N1 < number
    least_F = tl.min(tl.where(real_N1, x_NF, float("inf")), axis=0)
    most_F = tl.max(tl.where(real_N1, x_NF, float("-inf")), axis=0)
    on_F = tl.sum((real_N1 & (x_NF > 0)).to(tl.int32), axis=0)
    # the first row that has the maximum
    at_F = tl.min(tl.where(real_N1 & (x_NF == most_F[None, :]), row_N1, number), axis=0)
    rough_F = tl.div_rn(tl.sum(tl.where(real_N1, x_NF, 0.0), axis=0), number.to(tl.float32))
    from_mean_NF = tl.where(real_N1, x_NF - rough_F[None, :], 0.0)
    first_F = tl.sum(from_mean_NF, axis=0)
    second_F = tl.sum(from_mean_NF * from_mean_NF, axis=0)

    num, old = number.to(tl.float64), before.to(tl.float64)
    share = num / (old + num)
    rest_F = first_F.to(tl.float64)
    # comparisons step over a NaN, sums keep it
    constant_F = (least_F == most_F) & (first_F == first_F)
    here_F = tl.where(constant_F, least_F.to(tl.float64), rough_F.to(tl.float64) + rest_F / num)
    spread_F = second_F.to(tl.float64) - rest_F * rest_F / num
    spread_F = tl.where(constant_F | (spread_F < 0), 0.0, spread_F)
    delta_F = here_F - mean_F
    m2_F += spread_F + delta_F * delta_F * (old * share)
    mean_F = tl.where(before == 0, here_F, mean_F + delta_F * share)
    peak_F = tl.where(most_F > high_F, before + at_F, peak_F)
    low_F, high_F = tl.minimum(low_F, least_F), tl.maximum(high_F, most_F)
    return mean_F, m2_F, low_F, high_F, positive_F + on_F, peak_F


@triton.jit
def _fold_rows(
    rows, stride, product, begin, number, before, column_F, inside_F, width,
    mean_F, m2_F, low_F, high_F, positive_F, peak_F,
    KIND: tl.constexpr, FUSED: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The state after the tokens [begin, begin + number) of `rows`."""
    row_N1 = tl.arange(0, BLOCK_N)[:, None]
    for start in range(0, number, BLOCK_N):
        mask_NF = (row_N1 < number - start) & inside_F[None, :]
        token_N1 = begin + start + row_N1
        x_NF = _activations(rows, stride, product, token_N1, column_F[None, :], mask_NF, width, KIND, FUSED)
        mean_F, m2_F, low_F, high_F, positive_F, peak_F = _merge(
            x_NF, row_N1, tl.minimum(number - start, BLOCK_N), before + start,
            mean_F, m2_F, low_F, high_F, positive_F, peak_F,
        )  # fmt: skip
    return mean_F, m2_F, low_F, high_F, positive_F, peak_F


@triton.jit
def _multiply(
    rows, stride, product, begin, end, step, column_F, inside_F, width, KIND: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Write the product of the uncounted tokens [begin, end): blocks that start `step` tokens apart."""
    row_N1 = tl.arange(0, BLOCK_N)[:, None]
    for start in range(begin, end, step):
        mask_NF = (row_N1 < end - start) & inside_F[None, :]
        _activations(rows, stride, product, start + row_N1, column_F[None, :], mask_NF, width, KIND, True)


@triton.jit
def _segment(
    rows, stride, product, segment, mean, m2, low, high, positive, peak, held, column_F, inside_F, width, slot_width,
    KIND: tl.constexpr, FUSED: tl.constexpr, HOLDS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Fold one segment into its slot, or hold its only token back: harvest.probe.fold's TorchFolder, rule by rule."""
    begin, length, slot = tl.load(segment), tl.load(segment + 1), tl.load(segment + 2)
    num_held, before = tl.load(segment + 3), tl.load(segment + 4)
    old, new = 0, length
    held += slot.to(tl.int64) * HOLDS * slot_width
    if HOLDS > 0:
        alone = length == 1
        old = tl.where(alone & (num_held < HOLDS), 0, num_held)
        new = tl.where(alone, 0, length)
    if old + new > 0:
        at_F = slot.to(tl.int64) * slot_width + column_F
        mean_F, m2_F = tl.load(mean + at_F, inside_F, other=0.0), tl.load(m2 + at_F, inside_F, other=0.0)
        low_F, high_F = tl.load(low + at_F, inside_F, other=0.0), tl.load(high + at_F, inside_F, other=0.0)
        positive_F, peak_F = tl.load(positive + at_F, inside_F, other=0), tl.load(peak + at_F, inside_F, other=0)
        if HOLDS > 0:
            mean_F, m2_F, low_F, high_F, positive_F, peak_F = _fold_rows(
                held, slot_width, product, 0, old, before - num_held, column_F, inside_F, width,
                mean_F, m2_F, low_F, high_F, positive_F, peak_F, "given", False, BLOCK_N,
            )  # fmt: skip
        mean_F, m2_F, low_F, high_F, positive_F, peak_F = _fold_rows(
            rows, stride, product, begin, new, before, column_F, inside_F, width,
            mean_F, m2_F, low_F, high_F, positive_F, peak_F, KIND, FUSED, BLOCK_N,
        )  # fmt: skip
        # several threads may have read one number; none may read it after another one wrote it
        tl.debug_barrier()
        tl.store(mean + at_F, mean_F, inside_F)
        tl.store(m2 + at_F, m2_F, inside_F)
        tl.store(low + at_F, low_F, inside_F)
        tl.store(high + at_F, high_F, inside_F)
        tl.store(positive + at_F, positive_F, inside_F)
        tl.store(peak + at_F, peak_F, inside_F)
    if HOLDS > 0:
        if length == 1:
            x_F = _activations(rows, stride, product, begin, column_F, inside_F, width, KIND, FUSED)
            place = tl.where(num_held == HOLDS, 0, num_held)
            tl.store(held + place * slot_width + column_F, x_F.to(held.dtype.element_ty), inside_F)


@triton.jit(do_not_specialize=["num_tokens"])
def fold_kernel(
    rows, stride, product, num_tokens, table, count, mean, m2, low, high, positive, peak, held, width, slot_width,
    KIND: tl.constexpr, FUSED: tl.constexpr, HOLDS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_F: tl.constexpr,
):  # fmt: skip
    """One layer's step: the segments of `table` folded into the layer's state; grid (programs, blocks of neurons).

    `table` (1 + most segments, 5) int32 starts with the number of segments; row s + 1 is segment s. `rows` (T, …) hold
    gates, or activations where KIND is "given"; `stride` elements lie between tokens. `count` None: counted before.
    FUSED: `rows` are gate_up, and the `product` (T, width) of all T tokens is written on the way. The program of a
    segment also takes the uncounted tokens before it; those after the last one are shared by the programs without a
    segment, of which there must be one at least.
    """
    program, number = tl.program_id(0), tl.load(table)
    column_F = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    inside_F = column_F < width
    segment = table + 5 * (program + 1)
    done = 0
    if FUSED:
        if (program > 0) & (number > 0):
            last = table + 5 * tl.minimum(program, number)
            done = tl.load(last) + tl.load(last + 1)
    if program < number:
        _segment(
            rows, stride, product, segment, mean, m2, low, high, positive, peak, held, column_F, inside_F, width,
            slot_width, KIND, FUSED, HOLDS, BLOCK_N,
        )  # fmt: skip
        if FUSED:
            _multiply(rows, stride, product, done, tl.load(segment), BLOCK_N, column_F, inside_F, width, KIND, BLOCK_N)
        if count is not None:
            if tl.program_id(1) == 0:
                counter = count + tl.load(segment + 2)
                tl.store(counter, tl.load(counter) + tl.load(segment + 1))
    elif FUSED:
        idle = tl.num_programs(0) - number
        first = done + (program - number) * BLOCK_N
        _multiply(rows, stride, product, first, num_tokens, idle * BLOCK_N, column_F, inside_F, width, KIND, BLOCK_N)
