"""A printed kernel: its Python source and the signature that the program's steps call it by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """One argument of a kernel.

    `type` is "int64" for a size, else a DType name followed by "*" ("float32*") for an address.
    `noalias` states that what is written through this pointer is reached through no other one.
    """

    name: str
    type: str
    noalias: bool = False


@dataclass(frozen=True)
class KernelSource:
    """One kernel as text.

    `text` defines `def kernel(ctx, <parameters in order>, begin, end): ... return <status>`, which runs
    the tiles [begin, end) and returns 0, or a fault code. It uses only names of
    `codegen.namespace.KERNEL_NAMESPACE`. The text holds no name and no string of the model.

    `unroll`: LLVM may unroll loops. Without it, a loop over a constant number of elements is vectorised where it
    would be unrolled before it is, and compiles sooner.
    """

    label: str
    text: str
    parameters: tuple[Parameter, ...]
    unroll: bool = True
