"""The transforms of Winograd's convolution as macro intrinsics, for windows of 3 by 3 and outputs of 2 by 2 or 4 by 4.

A block of `block` by `block` outputs depends on a patch of `block + 2` squared inputs. Both are transformed one
dimension after the other, each channel by itself; channels lie along the vectors. The matrices are those of
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), for the points 0, 1, -1 (2, -2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from llvmlite import ir

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.routines import routine
from onnxsmith_compiler.codegen.storage import array_pointer
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiles import elements_at, multiply_add

WINDOW = 3
BLOCKS = (2, 4)
"""The output sizes there are transforms for."""
_LANES = (16, 8, 4)
_I64 = ir.IntType(64)
_FLOAT = ir.FloatType()

WEIGHT_MATRICES: Mapping[int, np.ndarray[Any, Any]] = MappingProxyType(
    {
        2: np.array([[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]]),
        4: np.array(
            [
                [1 / 4, 0, 0],
                [-1 / 6, -1 / 6, -1 / 6],
                [-1 / 6, 1 / 6, -1 / 6],
                [1 / 24, 1 / 12, 1 / 6],
                [1 / 24, -1 / 12, 1 / 6],
                [0, 0, 1],
            ]
        ),
    }
)
"""For each block the matrix G of shape [block + 2, 3], float64: the window g becomes G g G^T."""

Vector = Any
MultiplyAdd = Callable[[float, Vector, Vector], Vector]
"""factor * x + y"""
Transform = Callable[[Sequence[Vector], MultiplyAdd], list[Vector]]


def input_name(block: int, lanes: int) -> str:
    return f"winograd_input_{block}_f32x{lanes}"


def output_name(block: int, lanes: int) -> str:
    return f"winograd_output_{block}_f32x{lanes}"


def _input_2(x: Sequence[Vector], fma: MultiplyAdd) -> list[Vector]:
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _output_2(x: Sequence[Vector], fma: MultiplyAdd) -> list[Vector]:
    return [x[0] + (x[1] + x[2]), (x[1] - x[2]) - x[3]]


def _input_4(x: Sequence[Vector], fma: MultiplyAdd) -> list[Vector]:
    even, odd = fma(-4.0, x[2], x[4]), fma(-4.0, x[1], x[3])
    near, far = x[4] - x[2], x[3] - x[1]
    return [
        fma(-5.0, x[2], fma(4.0, x[0], x[4])),
        even + odd,
        even - odd,
        fma(2.0, far, near),
        fma(-2.0, far, near),
        fma(-5.0, x[3], fma(4.0, x[1], x[5])),
    ]


def _output_4(x: Sequence[Vector], fma: MultiplyAdd) -> list[Vector]:
    near_sum, near_difference = x[1] + x[2], x[1] - x[2]
    far_sum, far_difference = x[3] + x[4], x[3] - x[4]
    return [
        x[0] + (near_sum + far_sum),
        fma(2.0, far_difference, near_difference),
        fma(4.0, far_sum, near_sum),
        fma(8.0, far_difference, near_difference) + x[5],
    ]


_INPUT: Mapping[int, Transform] = MappingProxyType({2: _input_2, 4: _input_4})
_OUTPUT: Mapping[int, Transform] = MappingProxyType({2: _output_2, 4: _output_4})


def _two_dimensional(transform: Transform, size: int, patch: Sequence[Vector], fma: MultiplyAdd) -> list[Vector]:
    """`transform` along both dimensions of a `size` by `size` patch, given and returned row by row."""
    columns = [transform([patch[i * size + j] for i in range(size)], fma) for j in range(size)]
    rows = [transform([column[i] for column in columns], fma) for i in range(len(columns[0]))]
    return [value for row in rows for value in row]


def _input_intrinsic(block: int, lanes: int) -> Intrinsic:
    """The intrinsic `winograd_input_{block}_f32x{lanes}(table, pitch, channels, out, step)`.

    Transforms the patch whose pixel t, row by row, has its channels at address table[t * pitch]; element e of the
    result goes to out[e * step + channel]. `channels` is a multiple of `lanes`. `table` is int64*, `out` float32*,
    all else int64.
    """
    size = block + WINDOW - 1

    def load(loop: _ChannelLoop, arguments: Sequence[ir.Value], t: int) -> ir.Value:
        builder = loop.builder
        word = builder.load(builder.gep(arguments[0], [builder.mul(arguments[1], _I64(t))]))
        return loop.load(builder.inttoptr(word, _FLOAT.as_pointer()))

    def place(loop: _ChannelLoop, arguments: Sequence[ir.Value], e: int) -> ir.Value:
        return loop.builder.gep(arguments[3], [loop.builder.mul(arguments[4], _I64(e))])

    def reference(table: Any, pitch: int, channels: int, out: Any, step: int) -> None:
        addresses, result = array_pointer(table), array_pointer(out)
        pixels = [
            elements_at(int(addresses.array[addresses.start + t * pitch]), channels, "float32")
            for t in range(size * size)
        ]
        for e, value in enumerate(_two_dimensional(_INPUT[block], size, pixels, _reference_fma)):
            result.array[result.start + e * step :][:channels] = value

    transform = _Transform(_INPUT[block], size, lanes, load, place, channels=2)
    arguments = ("int64*", "int64", "int64", "float32*", "int64")
    return routine(input_name(block, lanes), arguments, transform.build, reference)


def _output_intrinsic(block: int, lanes: int) -> Intrinsic:
    """The intrinsic `winograd_output_{block}_f32x{lanes}(sums, step, channels, out)`.

    Transforms the patch whose element e has its channels at sums[e * step]; output p, row by row, goes to
    out[p * channels + channel]. `channels` is a multiple of `lanes`. The pointers are float32*, all else int64.
    """
    size = block + WINDOW - 1

    def load(loop: _ChannelLoop, arguments: Sequence[ir.Value], e: int) -> ir.Value:
        return loop.load(loop.builder.gep(arguments[0], [loop.builder.mul(arguments[1], _I64(e))]))

    def place(loop: _ChannelLoop, arguments: Sequence[ir.Value], p: int) -> ir.Value:
        return loop.builder.gep(arguments[3], [loop.builder.mul(arguments[2], _I64(p))])

    def reference(sums: Any, step: int, channels: int, out: Any) -> None:
        source, result = array_pointer(sums), array_pointer(out)
        patch = [source.array[source.start + e * step :][:channels] for e in range(size * size)]
        for p, value in enumerate(_two_dimensional(_OUTPUT[block], size, patch, _reference_fma)):
            result.array[result.start + p * channels :][:channels] = value

    transform = _Transform(_OUTPUT[block], size, lanes, load, place, channels=2)
    arguments = ("float32*", "int64", "int64", "float32*")
    return routine(output_name(block, lanes), arguments, transform.build, reference)


def _reference_fma(factor: float, x: Vector, y: Vector) -> Vector:
    return np.float32(factor) * x + y


@dataclass(frozen=True)
class _Transform:
    """A two-dimensional transform of patches.

    `load` and `place` say where elements are read and written; argument number `channels` counts the channels.
    """

    transform: Transform
    size: int
    lanes: int
    load: Callable[[_ChannelLoop, Sequence[ir.Value], int], ir.Value]
    place: Callable[[_ChannelLoop, Sequence[ir.Value], int], ir.Value]
    channels: int

    def build(self, function: ir.Function, target: Target) -> None:
        loop = _ChannelLoop(function, self.lanes, function.args[self.channels], target)
        patch = [_Lanes(loop, self.load(loop, function.args, t)) for t in range(self.size**2)]
        results = _two_dimensional(self.transform, self.size, patch, loop.multiply_add)
        for number, result in enumerate(results):
            loop.store(result.value, self.place(loop, function.args, number))
        loop.finish()


class _ChannelLoop:
    """A loop over the vectors of `channels` channels; what is emitted before `finish` is its body."""

    def __init__(self, function: ir.Function, lanes: int, channels: ir.Value, target: Target) -> None:
        self.kind = ir.VectorType(_FLOAT, lanes)
        self.channels, self.target = channels, target
        entry = function.append_basic_block("entry")
        self._body, self._done = function.append_basic_block("channels"), function.append_basic_block("done")
        self.builder = builder = ir.IRBuilder(entry)
        builder.cbranch(builder.icmp_signed(">", channels, _I64(0)), self._body, self._done)
        builder.position_at_end(self._body)
        self._channel = builder.phi(_I64)
        self._channel.add_incoming(_I64(0), entry)

    def load(self, pixel: ir.Value) -> ir.Value:
        """The current channels of the pixel at `pixel`, a float32*."""
        place = self.builder.gep(pixel, [self._channel])
        return self.builder.load(self.builder.bitcast(place, self.kind.as_pointer()), align=4)

    def store(self, value: ir.Value, pixel: ir.Value) -> None:
        place = self.builder.gep(pixel, [self._channel])
        self.builder.store(value, self.builder.bitcast(place, self.kind.as_pointer()), align=4)

    def multiply_add(self, factor: float, x: _Lanes, y: _Lanes) -> _Lanes:
        constant = ir.Constant(self.kind, [factor] * self.kind.count)
        return _Lanes(self, multiply_add(self.builder, self.target, constant, x.value, y.value))

    def finish(self) -> None:
        builder = self.builder
        following = builder.add(self._channel, _I64(self.kind.count))
        self._channel.add_incoming(following, self._body)
        builder.cbranch(builder.icmp_signed("<", following, self.channels), self._body, self._done)
        builder.position_at_end(self._done)
        builder.ret_void()


@dataclass(frozen=True)
class _Lanes:
    """A vector of a loop's channels, with numpy's operators."""

    loop: _ChannelLoop
    value: ir.Value

    def __add__(self, other: _Lanes) -> _Lanes:
        return _Lanes(self.loop, self.loop.builder.fadd(self.value, other.value))

    def __sub__(self, other: _Lanes) -> _Lanes:
        return _Lanes(self.loop, self.loop.builder.fsub(self.value, other.value))


WINOGRAD_TRANSFORMS: Mapping[str, Intrinsic] = MappingProxyType(
    {
        made.name: made
        for block in BLOCKS
        for lanes in _LANES
        for made in (_input_intrinsic(block, lanes), _output_intrinsic(block, lanes))
    }
)
"""Every such intrinsic that printed kernels may call, by name."""
