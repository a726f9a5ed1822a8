"""The C header of a compiled model.

Of the model's own strings only harmless characters are printed, in comments; the library tells them whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from onnxsmith.program import Program, Tensor
from onnxsmith.values import numpy_dtype, onnx_code
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen.c_interface import FUNCTIONS, Function
from onnxsmith_compiler.codegen.c_program import caller_symbols, known_dimension

# Whatever could end a comment, or begin a trigraph or an escape, is left out.
_HARMLESS = re.compile(r"[^A-Za-z0-9_.:/ -]")
_LONG = 90
_TYPES = (
    "FLOAT32", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL", "FLOAT16", "FLOAT64", "UINT32",
    "UINT64", "COMPLEX64", "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ",
    "UINT4", "INT4", "FLOAT4E2M1", "FLOAT8E8M0", "UINT2", "INT2",
)  # fmt: skip


def header_text(program: Program, name: str) -> str:
    """The header of the model called `name`, a C identifier."""
    parts = [_head(program, name), _definitions(program), _TYPES_TEXT, *map(_prototype, FUNCTIONS), _FOOT]
    return _named("\n\n".join(parts), name)


def _named(text: str, name: str) -> str:
    return text.replace("~~", name.upper()).replace("~", name)


def _head(program: Program, name: str) -> str:
    lines = [
        "/* A model compiled by onnxsmith: the functions of lib~.so.",
        "",
        "   inputs:",
        *_tensor_lines(program, program.inputs),
        "   outputs:",
        *_tensor_lines(program, program.outputs),
        *_in_place_lines(program),
        *_symbol_lines(program),
        "",
        "   A run takes these steps. All memory is the caller's: nothing is allocated.",
        "",
    ]
    statements = [(_named(statement, name), _named(remark, name)) for statement, remark in _STEPS]
    width = max(len(statement) for statement, _ in statements)
    steps = [f"     {statement:<{width}}  {remark}".rstrip() for statement, remark in statements]
    guard = '#ifndef ~~_H\n#define ~~_H\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern "C" {\n#endif'
    return "\n".join([*lines, *steps, "", _EXPLANATION, guard])


_STEPS = (
    ("int64_t sizes[] = {...};", "the symbols' sizes, in their order"),
    ("void *context = aligned_alloc(64, n);", "n = ~_context_size(threads)"),
    ("~_plan(context, n, threads, sizes);", ""),
    ("void *workspace = aligned_alloc(64, m);", "m = ~_workspace_size(context)"),
    ("~_bind(context, weights, weights_bytes, workspace, m);", ""),
    ("~_buffer in[] = {{x, x_bytes}}, out[] = {{y, y_bytes}};", ""),
    ("~_run(context, in, out);", "as often as you like"),
)
_EXPLANATION = """\
   `weights` are the bytes of weights.safetensors, mapped (mmap, MapViewOfFile) or read into memory. Contexts,
   workspaces and weights begin at multiples of 64 bytes, buffers at multiples of their elements' size; aligned_alloc
   wants n and m rounded up to 64, too. Tensors are dense, in row-major order. Functions that return int32_t give
   ~~_DONE or a code of those below; what went wrong is told by ~_error_text and ~_last_failure.

   The library keeps no state: any number of contexts may be planned and run at the same time. A context serves one
   call at a time. It must not be copied or moved once it is planned. */
"""

_TYPES_TEXT = """\
/* A tensor's memory. For `bytes`, the capacity is enough. `data` may be NULL for a tensor without elements, and for an
   input that has a default. */
typedef struct {
  void *data;
  int64_t bytes;
} ~_buffer;

/* What failed: `where` names an input, an output, or the ONNX nodes that were computed. For sizes, `value` is the one
   that there was, and `limit` the one that it did not fit; for indices they are the index and the bound. `where` is a
   text of the library's. */
typedef struct {
  const char *where;
  int64_t value;
  int64_t limit;
} ~_failure;

/* Lends threads to a run: calls task(argument, 0) ... task(argument, count - 1), each once, on as many threads as it
   likes, and returns when all have returned. Calls may come in any order, at the same time or one after another; the
   first does the work and those that come meanwhile share it, waiting in a loop for more. Fewer calls than `count` do
   no harm. `task` throws nothing and calls nothing of the caller's. */
typedef void (*~_parallel)(
    void *state, int32_t count, void (*task)(void *argument, int32_t index), void *argument);"""

_FOOT = """\
#ifdef __cplusplus
}
#endif

#endif
"""


def _definitions(program: Program) -> str:
    used = sorted({onnx_code(numpy_dtype(tensor.dtype)) for tensor in (*program.inputs, *program.outputs)})
    lines = [
        f"#define ~~_VERSION {c.INTERFACE_VERSION}",
        f"#define ~~_INPUTS {len(program.inputs)}",
        f"#define ~~_OUTPUTS {len(program.outputs)}",
        f"#define ~~_SYMBOLS {len(caller_symbols(program))}",
        "",
        "/* Dimensions that follow from the sizes of symbols; see ~_input_dim. */",
        "#define ~~_COMPUTED INT64_MIN",
        "",
        "/* Element types, by their numbers in ONNX. Bytes for bool; types of 4 and 2 bits take a byte each. */",
        *(f"#define ~~_{_TYPES[code - 1]} {code}" for code in used),
        "",
        "/* What functions return. */",
        *(f"#define ~~_{name} {code}  /* {text} */" for code, name, text in c.RESULTS),
    ]
    return "\n".join(lines)


def _prototype(function: Function) -> str:
    parameters = [_declared(kind, name) for kind, name in function.parameters]
    text = function.text.replace("\n", "\n   ")
    start = f"{_declared(function.result, f'~_{function.name}')}("
    whole = f"{start}{', '.join(parameters) or 'void'});"
    if len(whole) > _LONG:
        whole = start + ",".join(f"\n    {parameter}" for parameter in parameters) + ");"
    return f"/* {text} */\n{whole}"


def _declared(kind: str, name: str) -> str:
    return kind + name if kind.endswith("*") else f"{kind} {name}"


def _tensor_lines(program: Program, tensors: Sequence[Tensor]) -> list[str]:
    symbols = caller_symbols(program)

    def size(slot: int) -> str:
        known = known_dimension(program, slot)
        return _harmless(program.symbols[symbols[-1 - known]]) if -len(symbols) <= known < 0 else _size(known)

    lines = []
    for number, tensor in enumerate(tensors):
        shape = ", ".join(map(size, tensor.dims))
        default = ", which may be left out" if tensor.name in program.overridable and tensors is program.inputs else ""
        lines.append(f"     {number}  {_harmless(tensor.name)}: {tensor.dtype} [{shape}]{default}")
    return lines


def _size(known: int) -> str:
    return "..." if known == c.COMPUTED else str(known)


def _in_place_lines(program: Program) -> list[str]:
    return [f"   output {output} may be the memory of input {source}" for output, source in program.in_place]


def _symbol_lines(program: Program) -> list[str]:
    symbols = caller_symbols(program)
    if not symbols:
        return []
    lines = ["   symbols, whose sizes the caller chooses:"]
    read = {binding.slot: binding for binding in program.segments[0].bindings}
    for number, slot in enumerate(symbols):
        source = program.input_symbols[slot]
        if source is not None:
            where = f"dimension {source[1]} of input {source[0]}"
        else:
            where = f"what element {read[slot].element} of input {read[slot].source.index} holds in a run"
        lines.append(f"     {number}  {_harmless(program.symbols[slot])}: {where}")
    return lines


def _harmless(text: str) -> str:
    return _HARMLESS.sub("_", text)
