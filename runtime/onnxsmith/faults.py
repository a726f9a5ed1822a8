"""What the executor raises: facts for the session to put into the user's words."""

from __future__ import annotations

from onnxsmith import native_layout as abi


class InputMismatch(Exception):
    """An input that the program does not take.

    `index` is the input's number. `reason` is "count" (another number of inputs), "dtype", "rank",
    "dimension" (dimension `axis` differs from what the model says), "symbol" (it differs from what another
    input gave the same symbol: `symbol` is its name) or "size" (too few elements). `actual` and `expected`
    say what was given and what would be right.
    """

    def __init__(
        self,
        index: int,
        reason: str,
        actual: object,
        expected: object,
        axis: int | None = None,
        symbol: str | None = None,
    ) -> None:
        self.index, self.reason, self.actual, self.expected = index, reason, actual, expected
        self.axis, self.symbol = axis, symbol
        where = "" if axis is None else f", dimension {axis}"
        name = "" if symbol is None else f" ({symbol})"
        super().__init__(f"input {index}{where}: {reason}{name} is {actual}, expected {expected}")


class OutputMismatch(Exception):
    """An array given for output `index` that cannot hold it: its dtype, shape or flags differ."""

    def __init__(self, index: int, actual: str, expected: str) -> None:
        self.index, self.actual, self.expected = index, actual, expected
        super().__init__(f"output {index}: the array given is {actual}, needed is {expected}")


class ExecutionFault(Exception):
    """A kernel met data that it cannot work on.

    `step` is the step's number in the program, `code` the fault code of the kernel ABI, `value` the offending
    value and `limit` what it broke.
    """

    def __init__(self, step: int, code: int, value: int, limit: int) -> None:
        self.step, self.code, self.value, self.limit = step, code, value, limit
        super().__init__(f"step {step}: fault {code}, value {value}, limit {limit}")


_PLAN_ERRORS = {
    abi.OVERFLOWING_INSTRUCTION: "instruction {} overflows 64 bits",
    abi.DIVIDING_INSTRUCTION: "instruction {} divides by zero",
    abi.BAD_BUFFER: "buffer {} has a negative or impossible size",
    abi.BAD_STEP: "step {} has a negative or impossible size",
    abi.ARENA_OVERFLOW: "buffer {} does not fit into 64 bits of memory",
}


class PlanFault(Exception):
    """Impossible sizes follow from the inputs' shapes: `status` of os_plan, in `segment`, at `number`."""

    def __init__(self, segment: int, status: int, number: int) -> None:
        self.segment, self.status, self.number = segment, status, number
        super().__init__(f"segment {segment}: {_PLAN_ERRORS[status].format(number)}")


class SizeFault(Exception):
    """Check `number` of segment `segment` does not hold: its slots are `left` and `right`."""

    def __init__(self, segment: int, number: int, left: int, right: int) -> None:
        self.segment, self.number, self.left, self.right = segment, number, left, right
        super().__init__(f"segment {segment}: check {number} does not hold for sizes {left} and {right}")


class OutputSizeFault(Exception):
    """Output `index` would have a negative dimension, or more bytes than memory has addresses."""

    def __init__(self, index: int, shape: tuple[int, ...]) -> None:
        self.index, self.shape = index, shape
        super().__init__(f"output {index}: impossible shape {shape}")


RunFault = InputMismatch | OutputMismatch | ExecutionFault | PlanFault | SizeFault | OutputSizeFault | MemoryError
RUN_FAULTS = (
    InputMismatch, OutputMismatch, ExecutionFault, PlanFault, SizeFault, OutputSizeFault, MemoryError,
)  # fmt: skip
"""What a run may raise."""
