"""The C functions that a compiled model exports: one table for the header's text and for the library's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen import c_plan, c_query, c_run
from onnxsmith_compiler.codegen.kernel_function import Helper

Parameter = tuple[str, str]
"""A C type, in which "~" is the model's name, and a name."""

NATIVE: dict[str, Helper] = {
    "c.context_size": c_plan.context_size,
    "c.plan": c_plan.plan_context,
    "c.bind": c_plan.bind_context,
    "c.set_seed": c_plan.set_seed,
    "c.run": c_run.run_context,
    "c.work": c_run.work,
    "c.error_text": c_query.error_text,
    "c.symbol_name": c_query.symbol_name,
    "c.tensor_name": c_query.tensor_name,
    "c.tensor_type": c_query.tensor_type,
    "c.tensor_rank": c_query.tensor_rank,
    "c.tensor_dim": c_query.tensor_dim,
    "c.planned_dims": c_query.planned_dims,
    "c.planned_bytes": c_query.planned_bytes,
    "c.workspace_size": c_query.workspace_size,
    "c.last_failure": c_query.last_failure,
}
"""The functions that are the same for every model, by symbol: of int64 words. No C name has a dot."""


@dataclass(frozen=True)
class Function:
    """An exported function, without the model's name in front of its own.

    It calls `native` with the words named by `before` (see `c_library`), its parameters, and those named by `after`.
    A function without `native` returns the one word of `before`.
    """

    name: str
    result: str
    parameters: tuple[Parameter, ...]
    text: str
    native: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


_CONTEXT = ("void *", "context")
_CONST_CONTEXT = ("const void *", "context")
_RUN = (_CONTEXT, ("const ~_buffer *", "inputs"), ("const ~_buffer *", "outputs"))


def _tensor_functions(kind: str) -> Sequence[Function]:
    """What is told of inputs, and of outputs: `kind` is "input" or "output"."""
    number = ("int32_t", kind)
    range_of = (f"first_{kind}", f"{kind}s")
    return (
        Function(f"{kind}_count", "int32_t", (), f"How many {kind}s the model has.", before=(f"{kind}s",)),
        Function(
            f"{kind}_name", "const char *", (number,),
            f"The name of an {kind}, in UTF-8; NULL where there is none of that number.",
            "c.tensor_name", ("program", *range_of),
        ),
        Function(
            f"{kind}_type", "int32_t", (number,),
            f"The element type of an {kind}, one of ~~_FLOAT32, ...; or -~~_NO_SUCH_INDEX.",
            "c.tensor_type", ("program", *range_of),
        ),
        Function(
            f"{kind}_rank", "int32_t", (number,),
            f"The number of dimensions of an {kind}; or -~~_NO_SUCH_INDEX.",
            "c.tensor_rank", ("program", *range_of),
        ),
        Function(
            f"{kind}_dim", "int64_t", (number, ("int32_t", "axis")),
            "A dimension: its size; or -1 - s for the size of symbol s; or ~~_COMPUTED for one that follows from them.",
            "c.tensor_dim", ("program", *range_of),
        ),
        Function(
            f"{kind}_shape", "int32_t", (_CONST_CONTEXT, number, ("int64_t *", "dims")),
            f"Writes the dimensions of an {kind} for the planned sizes, as many as its rank.",
            "c.planned_dims", ("program", *range_of),
        ),
        Function(
            f"{kind}_bytes", "int64_t", (_CONST_CONTEXT, number),
            f"The bytes of an {kind} for the planned sizes; negative: the code of an error, -~~_SIZE_NOT_KNOWN for\n"
            "one that only a run can tell: it is known after a run, be it that the buffer was too small.",
            "c.planned_bytes", range_of,
        ),
    )  # fmt: skip


FUNCTIONS: tuple[Function, ...] = (
    Function("version", "int32_t", (), "The library's ~~_VERSION; a header belongs to the same one.",
             before=("version",)),
    Function("error_text", "const char *", (("int32_t", "code"),), "What a code means, in English.",
             "c.error_text", ("program",)),
    *_tensor_functions("input"),
    *_tensor_functions("output"),
    Function("symbol_count", "int32_t", (), "How many sizes the caller chooses.", before=("symbols",)),
    Function("symbol_name", "const char *", (("int32_t", "symbol"),),
             "The name of such a size, in UTF-8; NULL where there is none of that number.",
             "c.symbol_name", ("program",)),
    Function("context_size", "int64_t", (("int32_t", "threads"),),
             "The bytes of a context for runs of up to `threads` threads; negative: the code of an error.",
             "c.context_size", ("program",)),
    Function(
        "plan", "int32_t",
        (_CONTEXT, ("int64_t", "context_bytes"), ("int32_t", "threads"), ("const int64_t *", "sizes")),
        "Makes a context of the caller's memory, and plans it for the sizes of the symbols, in their order (NULL\n"
        "where there are none). May be called again, for other sizes or threads, while nothing runs in the context.",
        "c.plan", ("program",),
    ),
    Function("workspace_size", "int64_t", (_CONST_CONTEXT,),
             "The bytes of workspace for the planned sizes and threads; negative: the code of an error. Where sizes\n"
             "depend on what a run computes, it is what is known so far: more after ~~_WORKSPACE_TOO_SMALL.",
             "c.workspace_size", ("program",)),
    Function(
        "bind", "int32_t",
        (_CONTEXT, ("const void *", "weights"), ("int64_t", "weights_bytes"), ("void *", "workspace"),
         ("int64_t", "workspace_bytes")),
        "Gives a planned context the bytes of weights.safetensors, mapped or read, and a workspace. Both stay in use\n"
        "until the context is planned or bound anew. Any number of contexts may share the weights.",
        "c.bind", ("program",), ("find_kernels",),
    ),
    Function(
        "run", "int32_t", _RUN,
        "Runs the model in the calling thread. There is one buffer for each input and each output, in order. An\n"
        "output may overlap no other buffer, unless the list above says so.",
        "c.run", ("program",), ("none", "none", "none"),
    ),
    Function(
        "run_parallel", "int32_t", (*_RUN, ("~_parallel", "parallel"), ("void *", "state")),
        "As run, on threads that `parallel` lends: it is called with `state`, at most once a run (more often where\n"
        "sizes depend on what the run computes). The results are the same bits, whatever the number of threads.\n"
        "NULL for `parallel` runs the model in the calling thread.",
        "c.run", ("program",), ("task",),
    ),
    Function("seed", "int32_t", (_CONTEXT, ("uint64_t", "seed")),
             "Begins the random numbers of operators that have no seed of their own; planning begins them at 0.",
             "c.set_seed"),
    Function("last_failure", "int32_t", (_CONST_CONTEXT, ("~_failure *", "failure")),
             "What is known of the last failure in a context that was large enough to be planned.", "c.last_failure"),
)  # fmt: skip
