"""Times operators that are plain loops (no matrix product, convolution or recurrence) against onnxruntime.

Run as `python -m bench.loops [part of a case's name ...]`. Both engines run alternately in this process on one
thread; times are medians, and the rate is that of the bytes of inputs and outputs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.catalog import Array, Feed
from bench.peers import OURS, REFERENCE, Run

OPSET = 18
INT64 = TensorProto.INT64
SECONDS = 0.15
ROUNDS = 3

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LoopCase:
    """A model of a few nodes: inputs x0, x1, ..., one output y."""

    name: str
    model: onnx.ModelProto
    feed: Feed


def chain(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Array],
    constants: Sequence[tuple[str, Array]] = (),
    output: int = TensorProto.FLOAT,
) -> LoopCase:
    """The model of `nodes`, the last of which gives y, an element of type `output`."""
    feed = {f"x{number}": array for number, array in enumerate(inputs)}
    graph = helper.make_graph(
        nodes,
        "loops",
        [
            helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for key, array in feed.items()
        ],
        [onnx.ValueInfoProto(name="y", type=helper.make_tensor_type_proto(output, None))],
        [numpy_helper.from_array(array, key) for key, array in constants],
    )
    return LoopCase(name, helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9), feed)


def node(op_type: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node of the default domain; `inputs` are names between spaces."""
    return helper.make_node(op_type, inputs.split(), [output], **attributes)


def floats(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def pointwise() -> Iterable[LoopCase]:
    for size in (1_000, 30_000, 1_000_000):
        x = floats(size)
        yield chain(f"add {size}", [node("Add", "x0 x1")], [x, x])
        yield chain(f"relu {size}", [node("Relu", "x0")], [x])
        yield chain(f"sigmoid {size}", [node("Sigmoid", "x0")], [x])
        gelu = [node("Div", "x0 r", "a"), node("Erf", "a", "b"), node("Add", "b one", "c"), node("Mul", "x0 c", "d")]
        scalars = [("r", np.float32(2**0.5)), ("one", np.float32(1)), ("half", np.float32(0.5))]
        yield chain(f"gelu {size}", [*gelu, node("Mul", "d half")], [x], [(k, np.asarray(v)) for k, v in scalars])
        yield chain(f"where {size}", [node("Where", "x0 x1 x2")], [x > 0, x, x])
        yield chain(f"f32 to f16 {size}", [node("Cast", "x0", to=TensorProto.FLOAT16)], [x], output=TensorProto.FLOAT16)
        yield chain(f"f16 to f32 {size}", [node("Cast", "x0", to=TensorProto.FLOAT)], [x.astype(np.float16)])
    yield chain("add bias [8,64,56,56] + [64,1,1]", [node("Add", "x0 x1")], [floats(8, 64, 56, 56), floats(64, 1, 1)])
    yield chain("add bias [1,512,7,7] + [512,1,1]", [node("Add", "x0 x1")], [floats(1, 512, 7, 7), floats(512, 1, 1)])
    yield chain("scale [1,56,56,64] * [64]", [node("Mul", "x0 x1")], [floats(1, 56, 56, 64), floats(64)])
    yield chain("scale [50000,3] * [3]", [node("Mul", "x0 x1")], [floats(50000, 3), floats(3)])
    yield chain("outer [1000,1] + [1,1000]", [node("Add", "x0 x1")], [floats(1000, 1), floats(1, 1000)])
    for channels, size in ((64, 56), (512, 7)):
        parts = [(key, abs(floats(channels)) + 1) for key in ("s", "b", "m", "v")]
        nodes = [node("BatchNormalization", "x0 s b m v", "n"), node("Relu", "n")]
        yield chain(f"batch norm, relu [1,{channels},{size},{size}]", nodes, [floats(1, channels, size, size)], parts)


def transposes() -> Iterable[LoopCase]:
    to_last, to_first, heads = (0, 2, 3, 1), (0, 3, 1, 2), (0, 2, 1, 3)
    for shape, order in (
        ((1, 3, 224, 224), to_last),
        ((1, 224, 224, 3), to_first),
        ((1, 64, 56, 56), to_last),
        ((1, 56, 56, 64), to_first),
        ((1, 512, 7, 7), to_last),
        ((1, 7, 7, 512), to_first),
        ((1, 128, 12, 64), heads),
        ((1, 12, 128, 64), heads),
        ((1, 128, 12, 64), to_last),
        ((512, 512), (1, 0)),
        ((197, 64), (1, 0)),
        ((12, 197, 64), (0, 2, 1)),
    ):
        yield chain(f"transpose {list(shape)} {list(order)}", [node("Transpose", "x0", perm=order)], [floats(*shape)])


def rows() -> Iterable[LoopCase]:
    for count, columns in ((4096, 7), (1024, 64), (1536, 197), (64, 1000), (8, 30522), (1, 30522)):
        yield chain(f"softmax [{count},{columns}]", [node("Softmax", "x0", axis=-1)], [floats(count, columns)])
    yield chain("log softmax [64,1000]", [node("LogSoftmax", "x0", axis=-1)], [floats(64, 1000)])
    yield chain("softmax axis 1 [1,21,128,128]", [node("Softmax", "x0", axis=1)], [floats(1, 21, 128, 128)])
    for count, columns in ((128, 768), (3136, 96), (1, 768)):
        norm = [node("LayerNormalization", "x0 s b", axis=-1)]
        weights = [("s", floats(columns)), ("b", floats(columns))]
        yield chain(f"layer norm [{count},{columns}]", norm, [floats(count, columns)], weights)
    split = [node("ReduceMean", "x0 axes", "m"), node("Sub", "x0 m", "c"), node("Mul", "c c", "q")]
    split += [node("ReduceMean", "q axes", "v"), node("Add", "v e", "w"), node("Sqrt", "w", "d"), node("Div", "c d")]
    yield chain("layer norm of parts [128,768]", split, [floats(128, 768)], [("axes", ints(-1)), ("e", floats(1) ** 2)])


def reductions() -> Iterable[LoopCase]:
    for kind in ("Sum", "Max"):
        for shape, axes in (
            ((1_000_000,), (0,)),
            ((1000, 1000), (0, 1)),
            ((1000, 1000), (1,)),
            ((100_000, 10), (1,)),
            ((1000, 1000), (0,)),
            ((100_000, 10), (0,)),
            ((100, 100, 100), (1,)),
            ((16, 64, 784), (0, 2)),
            ((4, 250_000), (1,)),
        ):
            case = [node(f"Reduce{kind}", "x0 axes", keepdims=0)]
            yield chain(
                f"{kind.lower()} {list(shape)} over {list(axes)}", case, [floats(*shape)], [("axes", ints(*axes))]
            )
    for shape in ((1000, 1000), (1, 50257)):
        found = [node("ArgMax", "x0", axis=-1, keepdims=0)]
        yield chain(f"argmax {list(shape)}", found, [floats(*shape)], output=INT64)
    yield chain(
        "argmax axis 0 [21,10000]", [node("ArgMax", "x0", axis=0)], [floats(21, 10000)], output=TensorProto.INT64
    )
    yield chain("global average pool [1,512,7,7]", [node("GlobalAveragePool", "x0")], [floats(1, 512, 7, 7)])
    yield chain("global average pool [8,64,56,56]", [node("GlobalAveragePool", "x0")], [floats(8, 64, 56, 56)])
    last = [node("ReduceMean", "x0 axes", keepdims=0)]
    yield chain("channels-last mean [8,49,512]", last, [floats(8, 49, 512)], [("axes", ints(1))])


def moves() -> Iterable[LoopCase]:
    for count in (2, 8, 32):
        names = " ".join(f"x{number}" for number in range(count))
        first = [floats(1, 32, 28, 28)] * count
        yield chain(f"concat {count} channels-first", [node("Concat", names, axis=1)], first)
        yield chain(f"concat {count} channels-last", [node("Concat", names, axis=3)], [floats(1, 28, 28, 32)] * count)
    parts = [(key, abs(floats(256)) + 1) for key in ("s", "b", "m", "v")]
    dense = [node("Concat", " ".join(f"x{n}" for n in range(8)), "c", axis=1)]
    dense += [node("BatchNormalization", "c s b m v", "n"), node("Relu", "n")]
    yield chain("concat 8, batch norm, relu", dense, [floats(1, 32, 28, 28)] * 8, parts)
    window = [("b", ints(2, 2)), ("e", ints(-2, -2)), ("axes", ints(2, 3))]
    yield chain("slice [1,64,60,60] middle", [node("Slice", "x0 b e axes")], [floats(1, 64, 60, 60)], window)
    even = [("b", ints(0)), ("e", ints(1 << 40)), ("axes", ints(2)), ("step", ints(2))]
    yield chain("slice [64,128,128] step 2", [node("Slice", "x0 b e axes step")], [floats(64, 128, 128)], even)
    yield chain(
        "pad [1,64,56,56] by 1", [node("Pad", "x0 p")], [floats(1, 64, 56, 56)], [("p", ints(0, 0, 1, 1, 0, 0, 1, 1))]
    )
    tokens = np.random.default_rng(1).integers(0, 30522, 128)
    yield chain("embedding [30522,768], 128 rows", [node("Gather", "t x0")], [tokens], [("t", floats(30522, 768))])
    places = np.random.default_rng(1).integers(0, 512, 256)
    yield chain("gather [1000,512] last axis", [node("Gather", "x0 x1", axis=1)], [floats(1000, 512), places])
    yield chain(
        "expand [1,1,512] to [64,16,512]", [node("Expand", "x0 s")], [floats(1, 1, 512)], [("s", ints(64, 16, 512))]
    )
    yield chain("tile [64,256] by [4,2]", [node("Tile", "x0 r")], [floats(64, 256)], [("r", ints(4, 2))])
    shuffle = [node("Reshape", "x0 a", "s"), node("Transpose", "s", "t", perm=[0, 2, 1, 3, 4]), node("Reshape", "t b")]
    shapes = [("a", ints(1, 2, 58, 28, 28)), ("b", ints(1, 116, 28, 28))]
    yield chain("channel shuffle [1,116,28,28]", shuffle, [floats(1, 116, 28, 28)], shapes)
    yield chain("cumulative sum [256,1000]", [node("CumSum", "x0 a")], [floats(256, 1000)], [("a", np.array(1))])


FAMILIES = (pointwise, transposes, rows, reductions, moves)


def cases(parts: Sequence[str]) -> list[LoopCase]:
    """The cases whose names contain one of `parts`; all where there are none."""
    found = [case for family in FAMILIES for case in family()]
    return [case for case in found if not parts or any(part in case.name for part in parts)]


def race(runs: Sequence[Run], feed: Feed) -> list[float]:
    """Median seconds of a run of each, taken in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, own in zip(runs, times, strict=True):
            run(feed)
            end = time.perf_counter() + SECONDS / ROUNDS
            while not own or time.perf_counter() < end:
                start = time.perf_counter()
                run(feed)
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def copy_of(size: int) -> Run:
    """A copy between two buffers, so that as many bytes are touched as a case of `size` bytes touches."""
    source, target = np.ones(size // 2 + 1, np.uint8), np.empty(size // 2 + 1, np.uint8)

    def run(feed: Feed) -> list[Array]:
        np.copyto(target, source)
        return []

    return run


def moved_bytes(case: LoopCase, results: Sequence[Array]) -> int:
    return sum(array.nbytes for array in (*case.feed.values(), *results))


def report(case: LoopCase, ours: Run, reference: Run) -> None:
    got, wanted = ours(case.feed), reference(case.feed)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-3, atol=1e-3, err_msg=case.name)
    size = moved_bytes(case, wanted)
    own, other, copy = race([ours, reference, copy_of(size)], case.feed)
    print(
        f"{case.name:40} {own * 1e6:9.1f} {other * 1e6:9.1f} {other / own:6.2f} {size / own / 1e9:7.1f} "
        f"{size / copy / 1e9:7.1f}",
        flush=True,
    )


HEADER = f"{'case':40} {'ours us':>9} {'ort us':>9} {'faster':>6} {'GB/s':>7} {'memcpy':>7}"


def main() -> None:
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(sys.argv[1:]):
            path = Path(folder) / "case.onnx"
            path.write_bytes(case.model.SerializeToString())
            report(case, OURS.open(path, 1), REFERENCE.open(path, 1))


if __name__ == "__main__":
    main()
