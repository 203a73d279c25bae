"""The step in Triton, for GPUs: the equations of equations.py by hand, held to them by the tests.

One program works on one stretch of one parameter. Parameters and gradients are read where they lie: ``words`` holds
their addresses, uploaded by ``argument.Argument``. A step's decisions are read from memory too, so that the device can
make them itself (``advance``) and a CUDA graph can be replayed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from rwalk.core.native import words as shared
from rwalk.core.native.fused import WINDOWS

__all__ = ["advance", "pull", "step", "type_of"]

# Triton's kernels see only constants of its own type.
LIVE = tl.constexpr(shared.LIVE)
PENDS = tl.constexpr(shared.PENDS)
UPDATES = tl.constexpr(shared.UPDATES)
CLOSES = tl.constexpr(shared.CLOSES)
REOPENS = tl.constexpr(shared.REOPENS)
SEED = tl.constexpr(shared.SEED)
NONFINITE = tl.constexpr(shared.NONFINITE)
STRENGTH = tl.constexpr(shared.STRENGTH)
SCALE = tl.constexpr(shared.SCALE)
DAMPING = tl.constexpr(shared.DAMPING)
FACTOR = tl.constexpr(shared.FACTOR)
LIMIT = tl.constexpr(shared.LIMIT)
HEAD = tl.constexpr(shared.HEAD)
STEPS = tl.constexpr(shared.STEPS)
TASK_STEPS = tl.constexpr(shared.TASK_STEPS)
WINDOW_STEPS = tl.constexpr(shared.WINDOW_STEPS)
SKIPPED = tl.constexpr(shared.SKIPPED)
PENDING = tl.constexpr(shared.PENDING)
OPEN = tl.constexpr(shared.OPEN)
GENERATION = tl.constexpr(shared.GENERATION)
STALE = tl.constexpr(shared.STALE)
DISPLACED, STEP = tl.constexpr(WINDOWS["displaced"]), tl.constexpr(WINDOWS["step"])


def type_of(dtype: torch.dtype) -> tl.dtype:
    """Triton's name for a dtype."""
    return getattr(tl, str(dtype).removeprefix("torch."))


@triton.jit
def noise(index, seed):
    """16 random bits for each element, those of ``step.c``."""
    x = (index.to(tl.uint32) * 0x9E3779B1) ^ seed.to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return (x ^ (x >> 16)) & 0xFFFF


@triton.jit
def at_random(value, index, seed, kind: tl.constexpr, compact: tl.constexpr):
    """What is kept of a quantity that sums up over steps: in bfloat16 rounded at random, as ``step.c`` does."""
    if compact:
        bits = value.to(tl.uint32, bitcast=True) + noise(index, seed * 4 + kind)
        value = tl.where(value != value, value, (bits & 0xFFFF0000).to(tl.float32, bitcast=True))
    return value


@triton.jit
def to_nearest(value, compact: tl.constexpr):
    """What is kept of a value that is written anew, in bfloat16 if compact."""
    if compact:
        bits = value.to(tl.uint32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        value = tl.where(value != value, value, (bits & 0xFFFF0000).to(tl.float32, bitcast=True))
    return value


@triton.jit
def put(place, value, mask, index, seed, kind: tl.constexpr, compact: tl.constexpr):
    """Write what is kept of a quantity that sums up over steps."""
    kept = at_random(value, index, seed, kind, compact)
    tl.store(place, kept.to(place.dtype.element_ty), mask=mask)
    return kept


@triton.jit
def number(words, which: tl.constexpr):
    """One of the numbers."""
    return tl.load((words + which).to(tl.pointer_type(tl.float64)))


@triton.jit
def divide(x, y):
    """Rounded as on the CPU."""
    if x.dtype == tl.float32:
        return tl.div_rn(x, y)
    else:
        return x / y


@triton.jit
def way(start, end):
    """A weight that is not finite is nowhere, and no step has led there."""
    gone = start - end
    return tl.where(gone - gone == 0, gone, 0.0)


@triton.jit
def place_of(layout, which, aligned: tl.constexpr):
    """An offset or a size; a multiple of 8 where accesses can be vectors."""
    value = tl.load(layout + which)
    if aligned:
        value = tl.multiple_of(value, 8)
    return value


@triton.jit
def reach(words, which, dtype: tl.constexpr, aligned: tl.constexpr):
    """A pointer from its address."""
    place = tl.load(words + which).to(tl.pointer_type(dtype))
    if aligned:
        place = tl.multiple_of(place, 16)
    return place


@triton.jit
def load(place, mask, dtype: tl.constexpr):
    """Elements for arithmetic."""
    return tl.load(place, mask=mask, other=0.0).to(dtype)


@triton.jit(do_not_specialize=["generation", "delta_t", "fisher_every"])
def advance(ledger, generation, delta_t, fisher_every, phase_of_run: tl.constexpr):
    """What ``Steps.take_up`` does on the host: count the pending step, if it counts, and decide what it brings in."""
    live = tl.load(ledger + GENERATION) == generation
    pending = (tl.load(ledger + PENDING) != 0) & live
    void = tl.load(ledger + NONFINITE) != 0
    counts = (pending & (void == 0)).to(tl.int64)
    steps = tl.load(ledger + STEPS) + counts
    window_steps = tl.load(ledger + WINDOW_STEPS) + counts
    if phase_of_run:
        counted = steps
    else:
        counted = window_steps
    closes = counts * ((delta_t > 0) & (counted % tl.maximum(delta_t, 1) == 0)).to(tl.int64)
    updates = counts * ((fisher_every > 0) & (steps % tl.maximum(fisher_every, 1) == 0)).to(tl.int64)
    stays_open = tl.load(ledger + OPEN) != 0
    if pending & void:
        stays_open = window_steps > 0
    tl.store(ledger + LIVE, live.to(tl.int64))
    tl.store(ledger + PENDS, counts)
    tl.store(ledger + UPDATES, updates)
    tl.store(ledger + CLOSES, closes)
    tl.store(ledger + REOPENS, (live & (stays_open == 0)).to(tl.int64))
    tl.store(ledger + SEED, steps)
    if live:
        tl.store(ledger + STEPS, steps)
        tl.store(ledger + TASK_STEPS, tl.load(ledger + TASK_STEPS) + counts)
        tl.store(ledger + WINDOW_STEPS, window_steps * (1 - closes))
        tl.store(ledger + SKIPPED, tl.load(ledger + SKIPPED) + (pending & void).to(tl.int64))
        tl.store(ledger + PENDING, 1)
        tl.store(ledger + OPEN, 1)
        tl.store(ledger + NONFINITE, 0)
    else:
        tl.store(ledger + STALE, tl.load(ledger + STALE) + 1)


@triton.jit
def step(
    chunks, decisions, words, layout, scale_at,
    gradient, before, importance, anchor, fisher, change,
    window_start, displacement, scored, measured, count,
    P: tl.constexpr, S: tl.constexpr, compact: tl.constexpr, window: tl.constexpr,
    euclidean: tl.constexpr, rectified: tl.constexpr, measures: tl.constexpr,
    keeps: tl.constexpr, weighs: tl.constexpr, penalised: tl.constexpr, scaled: tl.constexpr, rests: tl.constexpr,
    aligned: tl.constexpr, chunk: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Bring the pending step in, close or open its window, then keep the one about to be taken.

    What is not to be done is masked. Nothing that was written is read again: another thread may have written it.
    """
    pends = (tl.load(decisions + PENDS) != 0) & (not rests)
    updates = (tl.load(decisions + UPDATES) != 0) & (not rests)
    closes = tl.load(decisions + CLOSES) != 0
    opens = closes | (tl.load(decisions + REOPENS) != 0)
    asks = updates  # for the Fisher
    if not euclidean:
        if window == STEP:
            asks = asks | pends
        else:
            asks = asks | closes
    if measures:
        asks = asks | opens
    live = tl.load(decisions + LIVE) != 0
    if not keeps:
        live = live & (pends | opens)
    if live:
        seed = tl.load(decisions + SEED)
        where = tl.program_id(0)
        p = tl.load(chunks + 2 * where).to(tl.int64)
        first = tl.load(chunks + 2 * where + 1).to(tl.int64) * chunk
        base = place_of(layout, 2 * p, aligned) + first
        left = place_of(layout, 2 * p + 1, aligned) - first
        theta = reach(words, HEAD + p, P, aligned) + first
        grad = theta
        if keeps:
            grad = reach(words, HEAD + count + p, P, aligned) + first
        factor, damping = number(words, FACTOR).to(S), number(words, DAMPING).to(S)
        rate = number(words, HEAD + 2 * count + p)
        alpha, stays = rate.to(S), (1.0 - rate).to(S)
        scale = tl.full([], 1.0, S)
        if scaled == 1:
            scale = number(words, SCALE).to(S)
        if scaled == 2:
            scale = tl.load(scale_at).to(S)
        limit = number(words, LIMIT).to(S)
        strength = (2.0 * number(words, STRENGTH)).to(S)
        bad = tl.full([block], 0, tl.int32)
        for begin in range(0, chunk, block):
            i = begin + tl.arange(0, block)
            mask = i < left
            at = base + i
            t = load(theta + i, mask, S)

            g = load(gradient + at, mask & pends, S)
            decrease = tl.where(pends, way(load(before + at, mask & pends, S), t), 0.0)
            f = load(fisher + at, mask & asks, S)
            average = put(fisher + at, f * stays + alpha * g * g, mask & updates, at, seed, 0, compact)
            f = tl.where(updates, average, f)
            if window == STEP:
                gathered, moved, scores = g * decrease, decrease, pends
            else:
                gathered = load(change + at, mask & (pends | closes), S) + g * decrease
                gathered = at_random(gathered, at, seed, 2, compact)
                left_over = tl.where(closes, 0.0, gathered)
                tl.store(change + at, left_over.to(change.dtype.element_ty), mask=mask & (pends | closes))
                scores = closes
                if window == DISPLACED:
                    moved = load(displacement + at, mask & (pends | closes), S) + decrease
                    moved = at_random(moved, at, seed, 3, compact)
                    rest = tl.where(opens, 0.0, moved)
                    tl.store(displacement + at, rest.to(displacement.dtype.element_ty), mask=mask & (pends | opens))
                else:
                    moved = way(load(window_start + at, mask & closes, S), t)
                    tl.store(window_start + at, t, mask=mask & opens)
            measure = tl.full([block], 1.0, S)
            if not euclidean:
                measure = f
            if measures:
                if not euclidean:
                    measure = load(measured + at, mask & closes, S)
                tl.store(measured + at, f.to(measured.dtype.element_ty), mask=mask & opens)
            gained = divide(gathered, moved * moved * measure * factor + damping)
            if rectified:
                gained = tl.where(gained < 0, 0.0, gained)
            put(scored + at, load(scored + at, mask & scores, S) + gained, mask & scores, at, seed, 1, compact)

            if keeps:
                tl.debug_barrier()  # what is overwritten now may be laid out over the threads in another way
                x = load(grad + i, mask, S)
                g = x
                if scaled != 0:
                    g = divide(x, tl.full([block], 1.0, S) * scale)
                bad = bad | (mask & ((tl.abs(g) <= limit) == 0)).to(tl.int32)  # NaN is not
                tl.store(gradient + at, to_nearest(g, compact).to(gradient.dtype.element_ty), mask=mask)
                b = t
                if weighs:
                    tl.store(before + at, t, mask=mask)
                else:
                    b = load(before + at, mask, S)
                if penalised:
                    force = (b - load(anchor + at, mask, S)) * load(importance + at, mask, S) * strength
                    if scaled != 0:
                        force = force * scale
                    tl.store(grad + i, to_nearest(x + force, P == tl.bfloat16).to(P), mask=mask)
        if keeps:
            flag = decisions + NONFINITE + tl.full([block], 0, tl.int32)
            tl.atomic_or(flag, tl.full([block], 1, tl.int64), mask=bad != 0)


@triton.jit
def pull(
    chunks, words, layout, importance, anchor, rates, count, void,
    P: tl.constexpr, S: tl.constexpr, traced: tl.constexpr, asks: tl.constexpr,
    aligned: tl.constexpr, chunk: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """θ ← (θ + cθ*) / (1 + c), c = lr·2λΩ."""
    where = tl.program_id(0)
    p = tl.load(chunks + 2 * where).to(tl.int64)
    first = tl.load(chunks + 2 * where + 1).to(tl.int64) * chunk
    base = place_of(layout, 2 * p, aligned) + first
    left = place_of(layout, 2 * p + 1, aligned) - first
    theta = reach(words, HEAD + p, P, aligned) + first
    if traced:
        rate = tl.load(rates + p).to(tl.float64)
    else:
        rate = number(words, HEAD + 2 * count + p)
    if asks:
        rate = tl.where(tl.load(void) != 0, 0.0, rate)
    weight = (2.0 * number(words, STRENGTH) * rate).to(S)
    for begin in range(0, chunk, block):
        i = begin + tl.arange(0, block)
        mask = i < left
        at = base + i
        t = load(theta + i, mask, S)
        target = load(anchor + at, mask, S)
        kept = divide(tl.full([block], 1.0, S), load(importance + at, mask, S) * weight + 1.0)
        near = target + kept * (t - target)
        far = t - (t - target) * (1.0 - kept)
        moved = tl.where(kept < 0.5, near, far)
        tl.store(theta + i, to_nearest(moved, P == tl.bfloat16).to(P), mask=mask)
