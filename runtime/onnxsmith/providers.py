"""Execution providers: the devices a session may ask for, under onnxruntime's names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from onnxsmith.errors import EPFail, error

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

Providers: TypeAlias = Sequence[str | tuple[str, Mapping[Any, Any]]]
ProviderOptions: TypeAlias = Sequence[Mapping[Any, Any]]


def get_all_providers() -> list[str]:
    """Every provider that onnxsmith has, whether or not this machine can use it."""
    return [CUDA, CPU]


def get_available_providers() -> list[str]:
    """The providers that can be used here, the fastest first."""
    return [CPU]


def get_device() -> str:
    """'CPU' or 'GPU': what the first available provider runs on."""
    return "CPU" if get_available_providers()[0] == CPU else "GPU"


def choose_providers(
    providers: Providers | None, provider_options: ProviderOptions | None, fallback: bool = False
) -> dict[str, dict[str, str]]:
    """The available ones of the providers that were asked for, each with its options, in order.

    Without a request it is the CPU. A provider that is missing is passed over with a UserWarning where a
    later one is available or `fallback` allows the CPU; otherwise it is an EPFail. ValueError for arguments
    of the wrong form, as in onnxruntime.
    """
    requested = _normalized(providers, provider_options)
    if not requested:
        return {CPU: {}}
    available = get_available_providers()
    usable = {name: options for name, options in requested.items() if name in available}
    missing = [name for name in requested if name not in available]
    if not missing:
        return usable
    if not usable and fallback:
        usable = {CPU: {}}
    problem = f"Provider {', '.join(map(repr, missing))} is not available here (available: {', '.join(available)})."
    if not usable:
        raise error(
            EPFail,
            f"{problem} Add '{CPU}' to the end of the list of providers if the CPU may be used instead.",
        )
    warnings.warn(f"{problem} The model runs on {next(iter(usable))}.", UserWarning, stacklevel=4)
    return usable


def _normalized(providers: Providers | None, provider_options: ProviderOptions | None) -> dict[str, dict[str, str]]:
    if providers is None:
        return {}
    if isinstance(providers, str) or not isinstance(providers, Sequence):
        raise ValueError("'providers' should be a sequence, such as ['CPUExecutionProvider'].")
    if provider_options is None:
        pairs = [_pair(provider) for provider in providers]
    else:
        pairs = _paired(providers, provider_options)
    result: dict[str, dict[str, str]] = {}
    for name, options in pairs:
        if name in result:
            warnings.warn(f"Duplicate provider '{name}' encountered, ignoring.", UserWarning, stacklevel=5)
        else:
            result[name] = {str(key): str(value) for key, value in options.items()}
    return result


def _pair(provider: str | tuple[str, Mapping[Any, Any]]) -> tuple[str, Mapping[Any, Any]]:
    match provider:
        case str():
            return provider, {}
        case (str() as name, Mapping() as options):
            return name, options
    raise ValueError("'providers' values must be either strings or (string, dict) tuples.")


def _paired(providers: Providers, options: ProviderOptions) -> list[tuple[str, Mapping[Any, Any]]]:
    if not isinstance(options, Sequence):
        raise ValueError("'provider_options' should be a sequence.")
    if len(providers) != len(options):
        raise ValueError("'providers' and 'provider_options' should be the same length if both are given.")
    if not all(isinstance(provider, str) for provider in providers):
        raise ValueError("Only string values for 'providers' are supported if 'provider_options' is given.")
    if not all(isinstance(entry, Mapping) for entry in options):
        raise ValueError("'provider_options' values must be dicts.")
    return [(str(name), entry) for name, entry in zip(providers, options, strict=True)]
