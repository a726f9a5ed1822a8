"""What this machine is, and how many multiply-adds its cores do in a second."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir

# Enough independent sums to fill two units of latency 4, few enough for 16 registers.
CHAINS = 12
SECONDS = 0.3


@dataclass(frozen=True)
class Machine:
    """`peak` maps a number of threads to billions of float32 multiply-adds a second."""

    cpu: str
    cores: int
    python: str
    system: str
    peak: dict[int, float]


def describe(thread_counts: list[int]) -> Machine:
    """This machine, with its peak measured for each number of threads."""
    cores = len(os.sched_getaffinity(0))
    peak = {threads: fma_peak(threads) for threads in thread_counts}
    return Machine(cpu_name(), cores, platform.python_version(), platform.platform(), peak)


def cpu_name() -> str:
    """The kernel's name for the CPU, with LLVM's beside it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()} ({llvm.get_host_cpu_name()})"
    return str(llvm.get_host_cpu_name())


def fma_peak(threads: int) -> float:
    """Billions of float32 multiply-adds a second on `threads` threads at once: the best of five tries."""
    kernel = FmaKernel()
    kernel.run(1000)
    count = int(1000 * SECONDS / kernel.seconds(1000))

    def rate(_: object) -> float:
        return count * kernel.lanes * CHAINS / kernel.seconds(count)

    with ThreadPoolExecutor(threads) as pool:
        return max(sum(pool.map(rate, range(threads))) for _ in range(5)) / 1e9


class FmaKernel:
    """`run(count)`: `count` rounds of CHAINS independent vector multiply-adds, of `lanes` floats each."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        self.lanes = 16 if features.get("avx512f") else 8 if features.get("fma") else 4
        # Intel's CPUs get halves of 512-bit vectors unless told; llvmlite has no word for this attribute.
        text = str(self._module()).replace(")\n{", ') "prefer-vector-width"="512"\n{')
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
        self._engine.finalize_object()
        address = self._engine.get_function_address("fma_loop")
        self.run = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(address)

    def seconds(self, count: int) -> float:
        start = time.perf_counter()
        self.run(count)
        return time.perf_counter() - start

    def _module(self) -> ir.Module:
        vector = ir.VectorType(ir.FloatType(), self.lanes)
        integer = ir.IntType(64)
        module = ir.Module("fma_peak")
        kind = ir.FunctionType(vector, [vector] * 3)
        fma = ir.Function(module, kind, f"llvm.fma.v{self.lanes}f32")
        function = ir.Function(module, ir.FunctionType(ir.FloatType(), [integer]), "fma_loop")

        entry, loop, done = (function.append_basic_block(name) for name in ("entry", "loop", "done"))
        ir.IRBuilder(entry).branch(loop)
        builder = ir.IRBuilder(loop)
        counter = builder.phi(integer)
        sums = [builder.phi(vector) for _ in range(CHAINS)]
        factor = ir.Constant(vector, [0.999] * self.lanes)
        results = [builder.call(fma, [total, factor, factor]) for total in sums]
        following = builder.add(counter, integer(1))
        builder.cbranch(builder.icmp_signed("<", following, function.args[0]), loop, done)
        counter.add_incoming(integer(0), entry)
        counter.add_incoming(following, loop)
        for number, (total, result) in enumerate(zip(sums, results, strict=True)):
            total.add_incoming(ir.Constant(vector, [float(number)] * self.lanes), entry)
            total.add_incoming(result, loop)

        builder = ir.IRBuilder(done)
        total = results[0]
        for result in results[1:]:
            total = builder.fadd(total, result)
        builder.ret(builder.extract_element(total, integer(0)))
        return module
