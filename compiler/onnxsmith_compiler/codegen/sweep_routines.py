"""Routines that prepare a sweep of panels over a tile's rows: the same in every kernel, which is shorter without."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxsmith_compiler.codegen.contraction_source import CACHE_LINE
from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.routines import printed_routine

_SHORT_SUM = 32

ROW_ADDRESSES = printed_routine(
    "row_addresses",
    ["int64*", "int64", "int64", "int64", "int64"],
    """
def kernel(table, start, row_bytes, rows, entries):
    for i in range(entries):
        store(table, i, start + min(i, rows - 1) * row_bytes)
""",
)
"""The routine `row_addresses(table, start, row_bytes, rows, entries)`: `entries` addresses, `row_bytes` apart from
`start` on; entries past the last of the `rows` repeat it."""

PREFETCH_SHARES = printed_routine(
    "prefetch_shares",
    ["int64*", "int64", "int64", "int64", "int64", "int64", "int64"],
    f"""
def kernel(shares, blocks, steps, panels, panel_row_bytes, rows_bytes, block_bytes):
    store(shares, 0, int_div(panel_row_bytes - 1 + blocks, blocks))
    store(shares, 1, min({CACHE_LINE}, int_div(rows_bytes, max(1, steps))))
    row_panels = 1 if steps >= {_SHORT_SUM} else 0
    store(shares, 2, row_panels)
    store(shares, 3, min({2 * CACHE_LINE}, int_div(block_bytes, max(1, (panels - row_panels) * steps))))
""",
)
"""The routine `prefetch_shares(shares, blocks, steps, panels, panel_row_bytes, rows_bytes, block_bytes)`, of a sweep of
`panels` panels over `blocks` blocks, each for sums of `steps` terms.

It writes to `shares`, four int64, how many bytes are prefetched with each term so that all are before they are needed:
0, of the next panel, whose rows have `panel_row_bytes`; 1, of the next block's rows, `rows_bytes` of them; 3, of the
next block's results, `block_bytes` of them. 2 is how many of the panels go with the next rows, and not with results:
none where sums are so short that results are more than rows.
"""

SWEEP_ROUTINES: Mapping[str, Intrinsic] = MappingProxyType(
    {made.name: made for made in (ROW_ADDRESSES, PREFETCH_SHARES)}
)
"""Every such routine that printed kernels may call, by name."""
