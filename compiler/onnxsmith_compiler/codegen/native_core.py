"""The native core: the fixed interpreter that every compiled program is run by.

Functions of the kernels' language over int64 addresses; `onnxsmith.native_layout` describes them and all
tables. The same code is linked into every program's library; the memory it works on belongs to the runtime,
so that any library can run on the one pool of the process.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnxsmith.native_layout import CORE_VERSION
from onnxsmith_compiler.codegen import native_plan, native_pool, native_run
from onnxsmith_compiler.codegen.kernel_function import Helper, helper
from onnxsmith_compiler.codegen.numba_adapter import NativeFunction, compile_functions
from onnxsmith_compiler.codegen.target import Target


@helper("int64")
def core_version() -> int:
    """The layout that this code was compiled for."""
    return CORE_VERSION


ENTRY_POINTS: dict[str, Helper] = {
    "os_core_version": core_version,
    "os_plan": native_plan.plan,
    "os_bind": native_plan.bind,
    "os_steps": native_run.steps,
    "os_call": native_run.call,
    "os_pool_worker": native_pool.pool_worker,
    "os_pool_stop": native_pool.pool_stop,
    "os_pool_spin": native_pool.pool_spin,
}


PARTS: dict[str, tuple[str, ...]] = {
    "plan": ("os_core_version", "os_plan", "os_bind"),
    "run": ("os_steps", "os_call", "os_pool_worker", "os_pool_stop", "os_pool_spin"),
}
"""The entry points of each of `kernel_key.CORE_PARTS`. What two parts call is in both."""


def compile_core(target: Target, symbols: Iterable[str] = tuple(ENTRY_POINTS)) -> bytes:
    """A relocatable object for `target` that exports `symbols`, which are among ENTRY_POINTS."""
    bodies = {symbol: ENTRY_POINTS[symbol] for symbol in symbols}
    functions = [NativeFunction(symbol, body.function, body.result, body.arguments) for symbol, body in bodies.items()]
    return compile_functions(functions, target)
