"""Runs a package's code for Windows in Wine, by runner.c: planned here, as the runtime would plan it there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from mixed_model import Feed

from onnxsmith import artifact, native_layout
from onnxsmith.manifest import CodeFile
from onnxsmith.program import Argument, Opcode, Place, Program, Step
from onnxsmith.values import numpy_dtype

_HERE = Path(__file__).parent
_ALIGNMENT = 64
_SECONDS = 300
_OPERATIONS = {
    Opcode.ADD: lambda a, b: a + b, Opcode.SUB: lambda a, b: a - b, Opcode.MUL: lambda a, b: a * b,
    Opcode.FLOORDIV: lambda a, b: a // b, Opcode.MOD: lambda a, b: a % b, Opcode.MAX: max, Opcode.MIN: min,
}  # fmt: skip


def build_runner(folder: Path) -> Path:
    """runner.exe, compiled by Zig."""
    constants = {name: value for name, value in vars(native_layout).items() if name.isupper()}
    (folder / "layout.h").write_text("".join(f"#define {name} {value}\n" for name, value in constants.items()))
    shutil.copy(_HERE / "runner.c", folder)
    command = ["cc", "-target", "x86_64-windows-gnu", "-O1", "-w", "-o", "runner.exe", "runner.c"]
    done = subprocess.run([sys.executable, "-m", "ziglang", *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "runner.exe"


def wine_command(folder: Path) -> tuple[list[str], dict[str, str]]:
    """What starts a program in Wine, with settings of its own in `folder`; skips the test where there is none."""
    wine = shutil.which("wine") or shutil.which("wine64")
    if wine is None:
        pytest.skip("wine is not installed: tools/emulators.sh installs it")
    environment = {**os.environ, "WINEPREFIX": str(folder / "wine"), "WINEDEBUG": "-all", "DISPLAY": ""}
    return [wine], environment


def run_code(package: Path, code: CodeFile, feed: Feed, runner: Path, folder: Path) -> list[np.ndarray]:
    """The outputs of one of a package's libraries."""
    program = artifact.read_program(package, code, artifact.read_manifest(package))
    write_plan(program, package, feed, folder)
    command, environment = wine_command(runner.parent)
    arguments = [str(runner), str((package / code.file).absolute()), str(folder)]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, errors="replace", timeout=_SECONDS
    )
    assert done.returncode == 0, done.stderr
    slots = slots_of(program, feed)
    return [
        np.fromfile(folder / f"output{number}.bin", numpy_dtype(tensor.dtype)).reshape([slots[s] for s in tensor.dims])
        for number, tensor in enumerate(program.outputs)
    ]


def slots_of(program: Program, feed: Feed) -> Sequence[int]:
    """The slots of a program of one segment."""
    (segment,) = program.segments
    slots = list(program.slots)
    for number, source in enumerate(program.input_symbols):
        assert source is not None
        slots[number] = feed[program.inputs[source[0]].name].shape[source[1]]
    for op, target, a, b in segment.instructions:
        slots[target] = _OPERATIONS[op](slots[a], slots[b])
    return slots


def write_plan(program: Program, package: Path, feed: Feed, folder: Path) -> None:
    """plan.txt and the data that it speaks of. Every buffer has memory of its own."""
    slots = slots_of(program, feed)
    (segment,) = program.segments
    starts, arena = [], 0
    for buffer in program.buffers:
        starts.append(arena)
        arena += -(-slots[buffer.size] // _ALIGNMENT) * _ALIGNMENT
    inputs = [np.ascontiguousarray(feed[tensor.name]) for tensor in program.inputs]
    sizes = [
        int(np.prod([slots[slot] for slot in tensor.dims])) * numpy_dtype(tensor.dtype).itemsize
        for tensor in program.outputs
    ]
    for number, array in enumerate(inputs):
        array.tofile(folder / f"input{number}.bin")
    weights = (package / artifact.WEIGHTS).read_bytes()[-program.weight_bytes :]
    (folder / "weights.bin").write_bytes(weights)
    scratch = max(slots[step.scratch] for step in segment.steps)
    head = [len(weights), arena, scratch, len(inputs), len(sizes), *(array.nbytes for array in inputs), *sizes]
    lines = [" ".join(map(str, head)), str(len(segment.steps))]
    lines += [" ".join(map(str, _step_words(program, step, slots, starts))) for step in segment.steps]
    (folder / "plan.txt").write_text("\n".join(lines) + "\n")


def _step_words(program: Program, step: Step, slots: Sequence[int], starts: Sequence[int]) -> Iterable[object]:
    yield from (program.kernels[step.kernel], slots[step.tiles], len(step.arguments))
    for argument in step.arguments:
        yield from _argument_words(argument, slots, starts)


def _argument_words(argument: Argument, slots: Sequence[int], starts: Sequence[int]) -> tuple[int, ...]:
    """The place, for inputs and outputs which one, and the value or the offset in bytes."""
    offset = 0 if argument.offset is None else slots[argument.offset]
    match argument.place:
        case Place.SLOT:
            return 0, slots[argument.index]
        case Place.BUFFER:
            return 1, starts[argument.index] + offset
        case Place.WEIGHT:
            return 2, argument.index + offset
        case Place.INPUT | Place.OUTPUT as place:
            return int(place), argument.index, offset
    raise ValueError(f"{argument} is of no known place")
