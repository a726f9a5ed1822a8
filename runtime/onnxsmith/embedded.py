"""What the Python package of a compiled model offers; this module runs as a part of it.

A package opens its model when it is first asked for, so that importing it takes no time.
"""

from __future__ import annotations

import functools
from typing import Any

from onnxsmith.forks import UNDIVIDED
from onnxsmith.options import RunOptions, SessionOptions
from onnxsmith.package import PackageSource
from onnxsmith.providers import ProviderOptions, Providers
from onnxsmith.session import InferenceSession


def load(
    sess_options: SessionOptions | None = None,
    providers: Providers | None = None,
    provider_options: ProviderOptions | None = None,
    *,
    verify: bool = False,
) -> InferenceSession:
    """Another session of the model, with options of its own; `verify` reads the weights in full first."""
    return InferenceSession(PackageSource(None, verify=verify), sess_options, providers, provider_options)


def attribute(name: str) -> Any:
    """An attribute of the package. KeyError where it has none of that name."""
    if name == "OrtValue":
        with UNDIVIDED:
            from onnxsmith.ort_value import OrtValue  # here: most programs have no need of it

        return OrtValue
    classes = {"RunOptions": RunOptions, "SessionOptions": SessionOptions, "load": load}
    if name in classes:
        return classes[name]
    with UNDIVIDED:  # the first opening, by whoever comes first
        session = _session()
    return {"session": session, "run": session.run, "metadata": session.get_modelmeta()}[name]


@functools.cache
def _session() -> InferenceSession:
    return load()
