"""InferenceSession: onnxruntime's session over a compiled program."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from onnxsmith.errors import ERRORS, Fail, InvalidArgument, NotImplemented, error, sentence_of
from onnxsmith.faults import RUN_FAULTS, OutputMismatch, RunFault
from onnxsmith.forks import UNDIVIDED
from onnxsmith.options import RunOptions, SessionOptions
from onnxsmith.package import PackageSource
from onnxsmith.providers import ProviderOptions, Providers, choose_providers
from onnxsmith.values import ModelMetadata, NodeArg, model_metadata, node_arg

if TYPE_CHECKING:
    from onnxsmith.compile_client import Progress
    from onnxsmith.executor import Executor
    from onnxsmith.feeds import Array, SymbolConflict
    from onnxsmith.io_binding import IOBinding
    from onnxsmith.ort_value import OrtValue
    from onnxsmith.profiling import Profile
    from onnxsmith.program import Program
    from onnxsmith.segment_runner import TimedRun

Path: TypeAlias = "str | os.PathLike[str]"
Result = TypeVar("Result")

_KNOWN_KEYWORDS = frozenset({"disabled_optimizers", "enable_fallback", "read_config_from_model"})


class InferenceSession:
    """A model, compiled and ready to run.

    The program comes from the cache where the model was compiled before, and is compiled in a process of
    its own otherwise. Runs from several threads at once are safe. A session can be pickled, which keeps
    the model's path or bytes and the options, and can be used after a fork.
    """

    def __init__(
        self,
        path_or_bytes: Path | bytes | PackageSource,
        sess_options: SessionOptions | None = None,
        providers: Providers | None = None,
        provider_options: ProviderOptions | None = None,
        *,
        on_progress: Progress | None = None,
        **kwargs: Any,
    ) -> None:
        """Load the model file at a path, or the model whose bytes are given.

        `providers` names devices in order of preference, each as a name or (name, options). A device that is
        not available is an EPFail unless a later one is, or enable_fallback=True is given. `on_progress` is
        called with (stage, done, total) while the model is compiled.

        Raises TypeError for another type of model, NoSuchFile, InvalidProtobuf, InvalidGraph, NotImplemented
        and the other classes of onnxsmith.errors for a model that cannot be compiled.
        """
        self._source = _source(path_or_bytes)
        if sess_options is not None and not isinstance(sess_options, SessionOptions):
            raise TypeError(f"sess_options must be an onnxsmith.SessionOptions, not {sess_options!r}")
        unknown = sorted(set(kwargs) - _KNOWN_KEYWORDS)
        if unknown:
            warnings.warn(f"InferenceSession ignores the argument '{unknown[0]}'.", UserWarning, stacklevel=2)
        self._options = sess_options if sess_options is not None else SessionOptions()
        _refuse_unsupported(self._options)
        self._fallback = int(kwargs.get("enable_fallback", 0)) == 1
        self._providers = choose_providers(providers, provider_options, self._fallback)
        self._load(on_progress)

    def _open(self, distinct_symbols: tuple[str, ...], on_progress: Progress | None) -> Executor:
        if isinstance(self._source, PackageSource):
            return self._source.open(self._options)
        with UNDIVIDED:
            from onnxsmith import opening  # here: a program that only imports onnxsmith starts sooner

        return opening.open_executor(self._source, self._options, distinct_symbols, on_progress)

    def _load(self, on_progress: Progress | None) -> None:
        self._start_ns = time.time_ns()
        self._profile = self._new_profile() if self._options.enable_profiling else None
        begin = time.perf_counter_ns()
        self._executor = self._open((), on_progress)
        if self._profile is not None:
            self._profile.add_session("session_initialization", begin)
        # A run that is profiled goes step by step, which only the checked way does.
        self._run_feed: Callable[[Mapping[str, Any]], list[Any] | None] = (
            self._executor.run_feed if self._profile is None else _not_at_once
        )
        self._distinct_symbols: tuple[str, ...] = ()
        self._distinct_executor: Executor | None = None
        program = self._executor.program
        self._inputs = [node_arg(tensor) for tensor in program.inputs if tensor.name not in program.overridable]
        self._overridable = [node_arg(tensor) for tensor in program.inputs if tensor.name in program.overridable]
        self._outputs = [node_arg(tensor) for tensor in program.outputs]
        self._metadata = model_metadata(program)
        self._output_names = [tensor.name for tensor in program.outputs]
        self._output_index = {tensor.name: index for index, tensor in enumerate(program.outputs)}

    @property
    def program(self) -> Program:
        """The compiled program."""
        return self._executor.program

    def get_session_options(self) -> SessionOptions:
        """The options this session was made with."""
        return self._options

    def get_inputs(self) -> list[NodeArg]:
        """The inputs that every run must be fed."""
        return self._inputs

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in the order in which `run` returns them."""
        return self._outputs

    def get_overridable_initializers(self) -> list[NodeArg]:
        """The initializers that a run may be fed in place of the model's own."""
        return self._overridable

    def get_modelmeta(self) -> ModelMetadata:
        """What the model says of itself."""
        return self._metadata

    def get_providers(self) -> list[str]:
        """The providers in use, in order of preference."""
        return list(self._providers)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """The options of each provider in use."""
        return {name: dict(options) for name, options in self._providers.items()}

    def set_providers(
        self, providers: Providers | None = None, provider_options: ProviderOptions | None = None
    ) -> None:
        """Use other providers from now on; the arguments are the constructor's."""
        self._providers = choose_providers(providers, provider_options, self._fallback)
        self._load(None)

    def enable_fallback(self) -> None:
        """Let later calls of set_providers fall back to the CPU."""
        self._fallback = True

    def disable_fallback(self) -> None:
        """Have later calls of set_providers fail where no provider is available."""
        self._fallback = False

    def get_profiling_start_time_ns(self) -> int:
        """When this session, and so its profile, began: time.time_ns()."""
        return self._start_ns

    def end_profiling(self) -> str:
        """Write the profile, if SessionOptions.enable_profiling asked for one; its path, else ""."""
        profile, self._profile = self._profile, None
        self._run_feed = self._executor.run_feed
        return "" if profile is None else profile.write()

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None = None,
    ) -> list[Any]:
        """Run the model.

        `output_names` None or empty is all outputs; a name may be repeated. `input_feed` has for each input a
        numpy array of its dtype, of any memory order and byte order, or a list, a number, or anything
        with `__array__`. What was passed is not changed, and the results are the caller's own.

        Raises ValueError where an input is missing; InvalidArgument for an unknown name, and for a dtype,
        rank or size that does not fit; RuntimeException where a node fails on the data.
        """
        if run_options is not None:
            _check_run_options(run_options)
        wanted = None
        if output_names and output_names != self._output_names:
            wanted = self._indices(output_names)
        try:
            results = self._run_feed(input_feed)
        except RUN_FAULTS as fault:
            raise _explained(self._executor.program, fault) from None
        if results is None:
            results = self._run_checked(input_feed)
        return results if wanted is None else _select(results, wanted)

    def run_timed(self, input_feed: Mapping[str, Any]) -> TimedRun:
        """As `run` of all outputs, step by step: the results, and when each step of the program began and ended."""
        return self._with_arrays(input_feed, lambda executor, arrays: executor.run_timed(arrays))

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As `run`, from and to OrtValues."""
        with UNDIVIDED:
            from onnxsmith.ort_value import OrtValue  # here, and the next: most programs have no need of them

        feed = {name: value.numpy() for name, value in input_dict_ort_values.items()}
        return [OrtValue(result) for result in self.run(output_names, feed, run_options)]

    def io_binding(self) -> IOBinding:
        """An empty binding of inputs and outputs to memory."""
        with UNDIVIDED:
            from onnxsmith.io_binding import IOBinding

        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run the model on the memory that `iobinding` names; the results are there, or in its get_outputs().

        ValueError for a binding of another session; RuntimeError, as in onnxruntime, for all that `run`
        refuses and where memory bound for an output does not fit.
        """
        if iobinding._session is not self:
            raise ValueError("IOBinding must be used with the session that created it.")
        if run_options is not None:
            _check_run_options(run_options)
        if iobinding._direct is not None:
            arrays, results = iobinding._direct
            try:
                if self._executor.run_bound(arrays, results):
                    return
            except RUN_FAULTS:
                pass  # as below
        inputs, outputs = iobinding._in_order()
        if self._profile is None and inputs is not None:
            try:
                iobinding._keep_results(self._executor.run_into(inputs, outputs))
                return
            except RUN_FAULTS:
                pass  # the checked way explains it, or does what onnxruntime does
        try:
            iobinding._results = self._run_checked(iobinding._inputs, outputs)
        except ERRORS as problem:
            raise RuntimeError(f"Error in execution: {sentence_of(problem)}") from None
        except ValueError as problem:
            raise RuntimeError(f"Error in execution: {problem}") from None

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Any,
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """Run the model in another thread, which then calls callback(results, user_data, error).

        `error` is "" after success; otherwise it is the message, and results is empty.
        """
        with UNDIVIDED:
            import threading

        def work() -> None:
            try:
                results, message = self.run(output_names, input_feed, run_options), ""
            except Exception as problem:
                results, message = [], str(problem)
            callback(results, user_data, message)

        threading.Thread(target=work, name="onnxsmith-run-async").start()

    def _run_checked(self, feed: Mapping[str, Any], given: list[Array | None] | None = None) -> list[Any]:
        """Convert what was fed and run it, or say what is wrong. Results go into the arrays of `given`."""
        return self._with_arrays(feed, lambda executor, arrays: self._run_arrays(executor, arrays, given))

    def _with_arrays(self, feed: Mapping[str, Any], run: Callable[[Executor, list[Array]], Result]) -> Result:
        """What `run` gives for the program that fits the feed, and the feed's arrays in the order of its inputs."""
        with UNDIVIDED:
            from onnxsmith import feeds

        executor = self._executor
        while True:
            program = executor.program
            try:
                arrays = feeds.collect(program, feed, executor.defaults)
            except feeds.SymbolConflict as conflict:
                executor = self._without_equality(conflict)
                continue
            try:
                return run(executor, arrays)
            except RUN_FAULTS as fault:
                raise _explained(program, fault) from None

    def _run_arrays(self, executor: Executor, arrays: list[Array], given: list[Array | None] | None) -> list[Any]:
        profile = self._profile
        if profile is not None:
            begin = time.perf_counter_ns()
            timed = executor.run_timed(arrays)
            profile.add_run(timed, begin)
            return timed.outputs if given is None else _copied(timed.outputs, given)
        return executor.run(arrays) if given is None else executor.run_into(arrays, given)

    def _new_profile(self) -> Profile:
        with UNDIVIDED:
            from onnxsmith.profiling import Profile

        return Profile(self._options.profile_file_prefix, next(iter(self._providers)))

    def _without_equality(self, conflict: SymbolConflict) -> Executor:
        """The program in which the inputs may disagree on the symbol, as onnxruntime lets them."""
        if conflict.symbol not in self._distinct_symbols or self._distinct_executor is None:
            if isinstance(self._source, PackageSource):
                raise error(
                    InvalidArgument,
                    f"Inputs '{conflict.first.input}' and '{conflict.second.input}' disagree on the size "
                    f"'{conflict.symbol}': {conflict.first}, {conflict.second}. Compile the model again with "
                    f"distinct_symbols=['{conflict.symbol}'] to let them.",
                )
            warnings.warn(
                f"Inputs '{conflict.first.input}' and '{conflict.second.input}' disagree on the size "
                f"'{conflict.symbol}', which the model gives to both: {conflict.first}, {conflict.second}. "
                "The model is compiled once more without that equality.",
                UserWarning,
                stacklevel=4,
            )
            distinct = (*self._distinct_symbols, conflict.symbol)
            self._distinct_executor = self._open(distinct, None)
            self._distinct_symbols = distinct
        return self._distinct_executor

    def _indices(self, names: Sequence[str]) -> list[int]:
        """Where the outputs called `names` are. InvalidArgument for a name that is none."""
        if isinstance(names, str):
            raise TypeError(f"output_names must be a list of names, such as ['{names}']")
        index = self._output_index
        try:
            return [index[name] for name in names]
        except KeyError as problem:
            raise error(
                InvalidArgument,
                f"Invalid output name:{problem.args[0]}. The outputs are: {', '.join(index)}.",
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "source": self._source,
            "options": self._options,
            "providers": self._providers,
            "fallback": self._fallback,
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._source = state["source"]
        self._options = state["options"]
        self._fallback = state["fallback"]
        self._providers = choose_providers(list(state["providers"].items()), None, self._fallback)
        self._load(None)


def _explained(program: Program, fault: RunFault) -> Exception:
    with UNDIVIDED:
        from onnxsmith.run_errors import explain

    return explain(program, fault)


def _not_at_once(feed: Mapping[str, Any]) -> None:
    return None


def _select(results: list[Any], wanted: Sequence[int]) -> list[Any]:
    """The wanted results; one that is wanted twice is copied, so that each is the caller's alone."""
    return [
        results[index] if index not in wanted[:place] else results[index].copy() for place, index in enumerate(wanted)
    ]


def _copied(results: list[Array], given: list[Array | None]) -> list[Array]:
    """`given`, with the results copied into its arrays and taken where there is none."""
    for index, (result, array) in enumerate(zip(results, given, strict=True)):
        if array is None:
            continue
        if (array.dtype, array.shape) != (result.dtype, result.shape):
            raise OutputMismatch(index, f"{array.dtype} {array.shape}", f"{result.dtype} {result.shape}")
        np.copyto(array, result)
    return [result if array is None else array for result, array in zip(results, given, strict=True)]


def _source(path_or_bytes: object) -> str | bytes | PackageSource:
    """The bytes, the absolute path, or the compiled package, that a model was given as."""
    if isinstance(path_or_bytes, bytes | PackageSource):
        return path_or_bytes
    if isinstance(path_or_bytes, str | os.PathLike):
        return os.path.abspath(os.fsdecode(path_or_bytes))
    raise TypeError(f"Unable to load from type '{type(path_or_bytes)}'")


def _refuse_unsupported(options: SessionOptions) -> None:
    if options.optimized_model_filepath:
        raise error(
            NotImplemented,
            "optimized_model_filepath: an optimised model is a compiled program here, which ONNX cannot "
            "express. `onnxsmith inspect --dump` shows it.",
        )


def _check_run_options(options: object) -> None:
    if not isinstance(options, RunOptions):
        raise TypeError(f"run_options must be an onnxsmith.RunOptions, not {options!r}")
    if options.terminate:
        raise error(Fail, "Exiting due to terminate flag being set to true.")
