import hashlib
import itertools
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hand_programs import chain_program, code, positives_program, sum_program

from onnxsmith import artifact
from onnxsmith.artifact import ArtifactError, Instruction, Opcode, Place, Program, Step, Tensor
from onnxsmith.cpu import host
from onnxsmith.executor import Executor
from onnxsmith.loader import Library, LibraryError
from onnxsmith.program_check import check_program
from onnxsmith.program_json import decode, encode

FILES = ["manifest.json", "program.json", "code.so", "weights.safetensors"]


def full_program() -> Program:
    """A program in which every field has something to lose."""
    program = positives_program()
    (step,) = program.segments[1].steps
    step = step._replace(label="add", nodes=("/layer.0/Add", "nom étrange \u2603"))
    return program._replace(
        inputs=(program.inputs[0]._replace(shape=("batch",)), Tensor("w", "float16", (), ())),
        outputs=(program.outputs[0]._replace(shape=(None,)),),
        segments=(program.segments[0], program.segments[1]._replace(steps=(step,))),
        weight_bytes=1000,
        overridable={"w": 128},
        metadata={"producer_name": "test"},
        custom_metadata={"key": '"quoted"'},
    )


def weights() -> list[tuple[int, np.ndarray]]:
    return [
        (0, np.arange(10, dtype=np.float32)),
        (64, np.array(7, np.int64)),
        (128, np.zeros((3, 0), np.int8)),
        (192, np.arange(12, dtype=np.float32).reshape(3, 4).T),
    ]


def write(
    folder: Path, program: Program, code: bytes | Callable[[], bytes], pieces: Iterable[tuple[int, np.ndarray]]
) -> None:
    """Write a program for this machine alone."""
    link = code if callable(code) else lambda: code
    artifact.write(folder, [artifact.Version(program, link, host())], pieces)


def test_programs_survive_json() -> None:
    for program in (sum_program(), chain_program(), full_program()):
        assert decode(encode(program)) == program


def test_a_step_argument_is_typed_after_reading() -> None:
    program = decode(encode(full_program()))
    assert program.segments[0].steps[0].arguments[0].place is Place.INPUT
    assert program.segments[1].bindings[0].source.place is Place.BUFFER
    assert program.segments[1].instructions[0].op is Opcode.ADD


def test_write_and_read(tmp_path: Path) -> None:
    program = full_program()
    write(tmp_path, program, b"some code", weights())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    package = artifact.read(tmp_path, verify=True)
    assert package.program == program and package.code == b"some code"
    assert package.weights.shape == (1000,) and package.weights.ctypes.data % 64 == 0
    for offset, array in weights():
        stored = package.weights[offset : offset + array.nbytes].view(array.dtype)
        np.testing.assert_array_equal(stored, array.reshape(-1))
    assert not package.weights.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        package.weights.setflags(write=True)


def test_code_is_asked_for_when_the_weights_are_written(tmp_path: Path) -> None:
    def code() -> bytes:
        assert (tmp_path / "weights.safetensors").stat().st_size > full_program().weight_bytes
        return b"late code"

    write(tmp_path, full_program(), code, weights())
    assert artifact.read(tmp_path, verify=True).code == b"late code"


def test_weights_are_a_safetensors_file(tmp_path: Path) -> None:
    write(tmp_path, full_program(), b"", weights())
    content = (tmp_path / "weights.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header == {"weights": {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]}}
    assert (8 + length) % 64 == 0 and len(content) == 8 + length + 1000


def test_large_files_are_written_a_huge_page_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "HUGE_PAGE", 16)
    written: list[int] = []
    write_whole = artifact._write_whole

    def note(file, part) -> None:
        written.append(len(part))
        write_whole(file, part)

    monkeypatch.setattr(artifact, "_write_whole", note)
    content = bytes(range(150))
    for edges in ([150], [0, 16, 150], [1, 1, 2, 50, 66, 150], [15, 31, 47, 150], list(range(150))):
        written.clear()
        chunks = [memoryview(content)[a:b] for a, b in itertools.pairwise([0, *edges, 150])]
        entry = artifact.write_file(tmp_path / "file", chunks)
        assert (tmp_path / "file").read_bytes() == content
        assert entry == artifact.FileEntry(150, hashlib.sha256(content).hexdigest())
        assert written == [16] * 9 + [6]


def test_a_program_is_run_from_its_files(tmp_path: Path) -> None:
    write(tmp_path, chain_program(), code(), ())
    package = artifact.read(tmp_path)
    executor = Executor(package.program, Library(package.code), package.weights, 1)
    x = np.arange(100, dtype=np.float32)
    np.testing.assert_array_equal(executor.run([x])[0], 64 * x)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, full_program(), b"code", weights())
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        artifact.read(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, full_program(), b"code", weights())
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged" if name != "manifest.json" else "json"):
        artifact.read(tmp_path, verify=True)


@pytest.mark.parametrize("size", [0, 7, 100, 1100])
def test_weights_of_another_size(tmp_path: Path, size: int) -> None:
    write(tmp_path, full_program(), b"code", weights())
    path = tmp_path / "weights.safetensors"
    path.write_bytes(path.read_bytes().ljust(2000, b"\0")[:size])
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        artifact.read(tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "null",
        '{"format": "onnxsmith program"}',
        '{"format": "other", "schema": 1, "files": {}}',
        '{"format": "onnxsmith program", "schema": 1, "files": {}}',
        '{"format": "onnxsmith program", "schema": 1, "files": {"code.so": 3}}',
        '{"format": "onnxsmith program", "schema": 999, "files": {}}',
    ],
)
def test_other_manifests(tmp_path: Path, manifest: str) -> None:
    write(tmp_path, full_program(), b"code", weights())
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        artifact.read(tmp_path)


def test_the_digest_tells_compiled_models_apart(tmp_path: Path) -> None:
    digests = set()
    for number, machine_code in enumerate([b"a", b"b", b"a"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, full_program(), machine_code, weights())
        digests.add(artifact.digest(folder))
    assert len(digests) == 2


def test_weights_that_overlap_are_refused(tmp_path: Path) -> None:
    for pieces in ([(0, np.zeros(8)), (60, np.zeros(1))], [(990, np.zeros(2))]):
        with pytest.raises(ValueError, match="overlaps"):
            write(tmp_path, full_program(), b"", pieces)


def test_code_that_is_none() -> None:
    with pytest.raises(LibraryError, match="cannot be loaded"):
        Library(b"no library")


def test_systems_without_memory_files(monkeypatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    executors = [Executor(chain_program(), Library(code()), None, 1) for _ in range(2)]
    x = np.arange(100, dtype=np.float32)
    for executor in executors:
        np.testing.assert_array_equal(executor.run([x])[0], 64 * x)


def test_running_imports_numpy_alone(tmp_path: Path) -> None:
    write(tmp_path, chain_program(), code(), ())
    script = f"""
import sys
from pathlib import Path
import numpy as np
from onnxsmith import artifact
from onnxsmith.executor import Executor
from onnxsmith.loader import Library

package = artifact.read(Path({str(tmp_path)!r}))
executor = Executor(package.program, Library(package.code), package.weights, 2)
assert executor.run([np.ones(50_000, np.float32)])[0][-1] == 64
foreign = {{"ml_dtypes", "numba", "llvmlite", "onnx", "onnxsmith_compiler"}} & set(sys.modules)
assert not foreign, foreign
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_libraries_do_not_take_each_others_place() -> None:
    libraries = [Library(code()) for _ in range(3)]
    assert len({library.address_of("add") for library in libraries}) == 3
    with pytest.raises(LibraryError, match="no function 'missing'"):
        libraries[0].address_of("missing")


def _with_step(program: Program, **changes: object) -> Program:
    first = program.segments[0]
    step: Step = first.steps[0]._replace(**changes)
    return program._replace(segments=(first._replace(steps=(step, *first.steps[1:])), *program.segments[1:]))


def _with_argument(program: Program, number: int, **changes: object) -> Program:
    arguments = list(program.segments[0].steps[0].arguments)
    arguments[number] = arguments[number]._replace(**changes)
    return _with_step(program, arguments=tuple(arguments))


BROKEN = {
    "no kernel 5": lambda p: _with_step(p, kernel=5),
    "tiles, cost, scratch, flops or traffic": lambda p: _with_step(p, traffic=1000),
    "no input 9": lambda p: _with_argument(p, 0, index=9),
    "no buffer 9": lambda p: _with_argument(p, 1, index=9),
    "slot 99 has no value": lambda p: _with_argument(p, 3, index=99),
    "offset has no value": lambda p: _with_argument(p, 1, offset=99),
    "outside the weights": lambda p: _with_argument(p, 0, place=Place.WEIGHT, index=1),
    "no output 0 whose shape is known": lambda p: _with_argument(p, 1, place=Place.OUTPUT, index=0),
    "buffer 0 is not alive": lambda p: p._replace(buffers=(p.buffers[0]._replace(first=1, last=1), *p.buffers[1:])),
    "dies before": lambda p: p._replace(buffers=(p.buffers[0]._replace(first=3, last=1), *p.buffers[1:])),
    "no segment": lambda p: p._replace(segments=()),
    "do not match in number": lambda p: p._replace(input_symbols=()),
    "names another slot": lambda p: p._replace(inputs=(p.inputs[0]._replace(dims=(2,)),)),
    "no such dimension": lambda p: p._replace(input_symbols=((0, 3), None)),
    "outside 64 bits": lambda p: p._replace(slots=(1 << 63, *p.slots[1:])),
    "is no input": lambda p: p._replace(overridable={"other": 0}),
    "reads a slot without a value": lambda p: p._replace(
        segments=(p.segments[0]._replace(instructions=(Instruction(Opcode.ADD, 2, 1, 0),)), p.segments[1])
    ),
    "writes a symbol": lambda p: p._replace(
        segments=(p.segments[0]._replace(instructions=(Instruction(Opcode.ADD, 0, 2, 2),)), p.segments[1])
    ),
    "is never known": lambda p: p._replace(segments=(p.segments[0],)),
    "integers, not of float32": lambda p: p._replace(
        segments=(
            p.segments[0],
            p.segments[1]._replace(bindings=(p.segments[1].bindings[0]._replace(dtype="float32"),)),
        ),
    ),
    "no symbol of its own": lambda p: p._replace(
        segments=(
            p.segments[0],
            p.segments[1]._replace(bindings=(p.segments[1].bindings[0]._replace(slot=0),)),
        ),
    ),
    "from the start of an input alone": lambda p: p._replace(
        segments=(p.segments[0]._replace(bindings=p.segments[1].bindings), p.segments[1])
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_inconsistent_programs_are_refused(message: str, tmp_path: Path) -> None:
    check_program(positives_program())
    with pytest.raises(ValueError, match=message):
        write(tmp_path, BROKEN[message](positives_program()), b"", ())
