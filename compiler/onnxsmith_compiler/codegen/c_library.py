"""The objects behind the C functions: one for every model, compiled by numba, and a small one of the model's own.

The model's own is written as LLVM assembly: its table (`c_program`) as constant data, and for each exported function
a call of the common one. Kernels' addresses are taken by instructions, for data with addresses in it would have to be
relocated where it is loaded. Both are for every CPU of the architecture: it is they that ask which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith.program import Program
from onnxsmith_compiler.codegen import llvm_backend
from onnxsmith_compiler.codegen.c_interface import FUNCTIONS, NATIVE, Function
from onnxsmith_compiler.codegen.c_layout import INTERFACE_VERSION
from onnxsmith_compiler.codegen.c_program import caller_symbols, program_table
from onnxsmith_compiler.codegen.numba_adapter import NativeFunction, compile_functions
from onnxsmith_compiler.codegen.target import Target

_NARROW = {"int32_t": "i32"}
_WORDS = {"int64_t", "uint64_t"}


def compile_common(target: Target) -> bytes:
    """A relocatable object that exports every one of `c_interface.NATIVE`, for all CPUs like `target`."""
    functions = [
        NativeFunction(symbol, native.function, native.result, native.arguments) for symbol, native in NATIVE.items()
    ]
    return compile_functions(functions, target.baseline)


def compile_own(program: Program, name: str, target: Target) -> bytes:
    """A relocatable object for `target` that exports the functions of the model called `name`."""
    module = llvm_backend.parse(own_text(program, name, target), target.baseline)
    module.verify()
    return llvm_backend.emit_object(module, target.baseline, "the C functions", imports=[*NATIVE, *program.kernels])


def own_text(program: Program, name: str, target: Target) -> str:
    """The model's own part in LLVM assembly."""
    table = program_table(program, target)
    # dso_local: in the same library, to be reached without a table of addresses.
    lines = [
        f'@program = internal constant [{len(table)} x i8] c"{_escaped(table)}", align 64',
        *(f"declare dso_local i64 @{symbol}({_words(len(native.arguments))})" for symbol, native in NATIVE.items()),
        *(f"declare dso_local i32 @{kernel}(ptr, ptr, i64, i64)" for kernel in program.kernels),
        "define internal void @task(ptr %context, i32 %index) nounwind {",
        "  %word = ptrtoint ptr %context to i64",
        "  %status = call i64 @c.work(i64 %word)",
        "  ret void",
        "}",
        "define internal i32 @find_kernels(ptr %table, ptr, i64, i64) nounwind {",
        *_kernel_addresses(program.kernels),
        "  ret i32 0",
        "}",
    ]
    words = _model_words(program)
    for function in FUNCTIONS:
        lines += _definition(function, name, words)
    return "\n".join(lines) + "\n"


def _model_words(program: Program) -> dict[str, str]:
    """What Function.before and after may name."""
    return {
        "program": "ptrtoint (ptr @program to i64)",
        "task": "ptrtoint (ptr @task to i64)",
        "find_kernels": "ptrtoint (ptr @find_kernels to i64)",
        "none": "0",
        "version": str(INTERFACE_VERSION),
        "symbols": str(len(caller_symbols(program))),
        "inputs": str(len(program.inputs)),
        "outputs": str(len(program.outputs)),
        "first_input": "0",
        "first_output": str(len(program.inputs)),
    }


def _definition(function: Function, name: str, words: dict[str, str]) -> list[str]:
    parameters = [(_type(kind), f"%{parameter}") for kind, parameter in function.parameters]
    listed = ", ".join(f"{kind} {parameter}" for kind, parameter in parameters)
    result = _type(function.result)
    lines = [f"define {result} @{name}_{function.name}({listed}) nounwind {{"]
    if not function.native:
        (word,) = function.before
        return [*lines, f"  ret {result} {words[word]}", "}"]
    arguments = [words[word] for word in function.before]
    for kind, parameter in parameters:
        lines += _widened(kind, parameter)
        arguments.append(parameter if kind == "i64" else f"{parameter}.word")
    arguments += [words[word] for word in function.after]
    called = ", ".join(f"i64 {argument}" for argument in arguments)
    lines.append(f"  %result = call i64 @{function.native}({called})")
    return [*lines, *_returned(result), "}"]


def _type(kind: str) -> str:
    return "i64" if kind in _WORDS else _NARROW.get(kind, "ptr")


def _widened(kind: str, parameter: str) -> list[str]:
    if kind == "i64":
        return []
    how = f"ptrtoint ptr {parameter}" if kind == "ptr" else f"sext i32 {parameter}"
    return [f"  {parameter}.word = {how} to i64"]


def _returned(kind: str) -> list[str]:
    if kind == "i64":
        return ["  ret i64 %result"]
    how = "inttoptr i64 %result to ptr" if kind == "ptr" else "trunc i64 %result to i32"
    return [f"  %returned = {how}", f"  ret {kind} %returned"]


def _kernel_addresses(kernels: Sequence[str]) -> list[str]:
    """Instructions that write the kernels' addresses to %table."""
    lines = []
    for number, kernel in enumerate(kernels):
        lines.append(f"  %cell{number} = getelementptr i64, ptr %table, i64 {number}")
        # volatile: stores that may be joined become copies of a table of addresses.
        lines.append(f"  store volatile i64 ptrtoint (ptr @{kernel} to i64), ptr %cell{number}")
    return lines


def _words(count: int) -> str:
    return ", ".join(["i64"] * count)


def _escaped(data: bytes) -> str:
    return "".join(f"\\{byte:02X}" for byte in data)
