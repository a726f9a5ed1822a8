"""How fast this machine is at most: float32 multiply-adds a second, and bytes read a second, by small native loops."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from onnxsmith_compiler.codegen import llvm_backend
from onnxsmith_compiler.codegen.target import Target

CHAINS = 12
"""Independent sums: enough to fill two units of latency 4, few enough for 16 registers."""
_SECONDS = 0.3
"""What a measurement takes: the best of many short tries, since other programs may run beside most of them."""
_TRY_SECONDS = 0.01
_INTEGER = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


def multiply_add_peak(threads: int) -> float:
    """Float32 multiply-adds a second on `threads` threads at once."""
    target = Target.host()
    run = compile_loop(multiply_add_loop(target), target)
    work = CHAINS * _lanes(target)
    rounds = 1000
    while _seconds(run, None, rounds) < _TRY_SECONDS:
        rounds *= 2
    return _best(threads, lambda thread: work * rounds / _seconds(run, None, rounds))


def read_bandwidth(threads: int, size: int) -> float:
    """Bytes a second that `threads` threads together read of a buffer of `size` bytes.

    ValueError where these are too few to share out.
    """
    target = Target.host()
    run = compile_loop(reading_loop(target), target)
    step = CHAINS * target.vector_bits // 8
    share = size // threads // step * step
    if share == 0:
        raise ValueError(f"{size} bytes are too few for {threads} threads to read")
    buffer = np.ones(size + step, np.uint8)  # written once, so that every page is there
    start = buffer.ctypes.data + -buffer.ctypes.data % step
    return _best(threads, lambda thread: share / _seconds(run, start + thread * share, share))


def _best(threads: int, rate: Callable[[int], float]) -> float:
    """The largest sum of what `rate` gives for each thread, all at once."""
    best = 0.0
    end = time.perf_counter() + _SECONDS
    with ThreadPoolExecutor(threads) as pool:
        while best == 0.0 or time.perf_counter() < end:
            best = max(best, sum(pool.map(rate, range(threads))))
    return best


def _seconds(run: Callable[[int | None, int], float], address: int | None, count: int) -> float:
    start = time.perf_counter()
    run(address, count)
    return time.perf_counter() - start


def _lanes(target: Target) -> int:
    return target.vector_bits // 32


def multiply_add_loop(target: Target) -> ir.Module:
    """float loop(_, n): n rounds of CHAINS vector multiply-adds, the first lane of the sum of all."""
    vector = ir.VectorType(ir.FloatType(), _lanes(target))
    module = ir.Module("multiply_add")
    fma = ir.Function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{vector.count}f32")
    factor = ir.Constant(vector, [0.999] * vector.count)

    def step(builder: ir.IRBuilder, place: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        if target.fma:
            return [builder.call(fma, [total, factor, factor]) for total in sums]
        return [builder.fadd(builder.fmul(total, factor), factor) for total in sums]

    _add_loop(module, vector, 1, step)
    return module


def reading_loop(target: Target) -> ir.Module:
    """float loop(p, n): n bytes from p on, which is aligned, are read; the first lane of the sum of all vectors."""
    vector = ir.VectorType(ir.FloatType(), _lanes(target))
    module = ir.Module("reading")
    width = vector.count * 4

    def step(builder: ir.IRBuilder, place: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        results = []
        for number, total in enumerate(sums):
            address = builder.bitcast(builder.gep(place, [_INTEGER(number * width)]), vector.as_pointer())
            results.append(builder.fadd(total, builder.load(address, align=width)))
        return results

    _add_loop(module, vector, CHAINS * width, step)
    return module


def _add_loop(
    module: ir.Module,
    vector: ir.VectorType,
    stride: int,
    step: Callable[[ir.IRBuilder, ir.Value, list[ir.Value]], list[ir.Value]],
) -> None:
    """Add `float loop(p, n)`: `step` of CHAINS running sums at p, p + stride, ... as long as that is below p + n."""
    function = ir.Function(module, ir.FunctionType(ir.FloatType(), [_BYTES, _INTEGER]), "loop")
    start, count = function.args
    entry, loop, done = (function.append_basic_block(name) for name in ("entry", "loop", "done"))
    ir.IRBuilder(entry).branch(loop)
    builder = ir.IRBuilder(loop)
    position = builder.phi(_INTEGER)
    sums = [builder.phi(vector) for _ in range(CHAINS)]
    results = step(builder, builder.gep(start, [position]), sums)
    following = builder.add(position, _INTEGER(stride))
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    position.add_incoming(_INTEGER(0), entry)
    position.add_incoming(following, loop)
    for number, (total, result) in enumerate(zip(sums, results, strict=True)):
        total.add_incoming(ir.Constant(vector, [float(number)] * vector.count), entry)
        total.add_incoming(result, loop)
    builder = ir.IRBuilder(done)
    total = results[0]
    for result in results[1:]:
        total = builder.fadd(total, result)
    builder.ret(builder.extract_element(total, _INTEGER(0)))


def compile_loop(module: ir.Module, target: Target) -> Callable[[int | None, int], float]:
    """The module's loop as a function of an address and a count, which runs without the GIL."""
    # Intel's CPUs get halves of 512-bit vectors unless told; llvmlite has no word for this attribute.
    text = str(module).replace(")\n{", f') "prefer-vector-width"="{target.vector_bits}"\n{{')
    parsed = llvm_backend.parse(text, target)
    engine = llvm.create_mcjit_compiler(parsed, llvm_backend.new_target_machine(target))
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address("loop"))

    def run(address: int | None, count: int, engine: llvm.ExecutionEngine = engine) -> float:
        return float(function(address, count))

    return run
