"""Measured tilings: the fastest is chosen, kept and found again, and no result changes. No real time is asserted."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.compiling import Compiler, executor_of, run_named
from tests.models import attention, convolutional
from tests.models.catalog import make_feed

from onnxsmith.cache import Cache, open_cache
from onnxsmith_compiler import pipeline, step_timer
from onnxsmith_compiler.codegen.other_tilings import MOST_OTHERS, TilingSpace
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import CompiledModel, compile_model
from onnxsmith_compiler.tuning import Steps, Times, find_layers, tune
from onnxsmith_compiler.workers import CompilePool

TARGET = Target.host()
MODELS = {
    "resnet18": functools.partial(convolutional.resnet18, blocks=(1, 1)),
    "resnet-winograd": functools.partial(convolutional.resnet18, width=64, blocks=(1,)),
    "mobilenet": convolutional.mobilenet_v2,
    "bert": functools.partial(attention.bert, batch=1, tokens=80, length=80, depth=1),
}
LABELS = {
    "resnet18": {"conv"},
    "resnet-winograd": {"conv", "winograd"},
    "mobilenet": {"conv", "matmul", "depthwise"},
    "bert": {"matmul", "attention"},
}
"""The kinds of steps of each that have other tilings."""


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    kernels = os.environ.get("ONNXSMITH_CACHE_DIR") or tmp_path_factory.mktemp("kernels")
    with Compiler(Path(kernels), workers=2) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = open_cache(tmp_path / "cache")
    assert cache is not None
    return cache


class FakeTimer:
    """Measures steps by what `seconds` says of their sizes; counts how often it is asked."""

    def __init__(self, seconds: Callable[[list[int], int], float], rounds: int = 4) -> None:
        self.calls = 0
        self._seconds = seconds
        self._rounds = rounds

    def __call__(self, versions: Sequence[Steps]) -> Times:
        self.calls += 1
        return [
            [[[self._seconds(sizes(step.kernel), number) for step in steps]] * 2 for steps in versions]
            for number in range(self._rounds)
        ]


def sizes(kernel: object) -> list[int]:
    return [argument for argument in kernel.arguments if isinstance(argument, int)]  # type: ignore[attr-defined]


def fails(versions: Sequence[Steps]) -> Times:
    raise AssertionError("something is measured that is known")


@functools.cache
def lowered(name: str) -> pipeline.Lowered:
    proto = MODELS[name]()
    return pipeline.lower_model(pipeline.load_model(proto.SerializeToString()), CompileOptions(tune=True), TARGET)


class TestSpaces:
    @pytest.mark.parametrize("rows, panels", [(1, 1), (5, 40), (196, 8), (3136, 2), (50000, 100)])
    @pytest.mark.parametrize("chosen", [Tiling(14, 1), Tiling(28, 3), Tiling(196, 2)])
    def test_others_are_few_distinct_and_whole(self, rows: int, panels: int, chosen: Tiling) -> None:
        others = TilingSpace(rows, panels, 14, most_units=16).others(chosen)
        cuts = {(-(-rows // tiling.rows), -(-panels // tiling.panels)) for tiling in (chosen, *others)}
        assert len(cuts) == len(others) + 1 <= MOST_OTHERS + 1
        for tiling in others:
            assert tiling.rows % 14 == 0 and 14 <= tiling.rows <= 16 * 14
            assert 1 <= tiling.panels <= panels
        assert others or rows <= 14

    def test_panels_keep_their_unit(self) -> None:
        others = TilingSpace(1, 64, 14, panel_unit=4).others(Tiling(14, 16))
        assert others and all(tiling.panels % 4 == 0 for tiling in others)

    def test_unknown_sizes_have_no_others(self) -> None:
        assert TilingSpace(dims.symbol("N"), 4, 14).others(Tiling(14, 1)) == ()
        assert TilingSpace(64, dims.symbol("N"), 14).others(Tiling(14, 1)) == ()


class TestChoice:
    def test_fastest_candidate_of_each_layer_is_chosen(self) -> None:
        steps = lowered("resnet18").steps
        layers = find_layers(steps, TARGET)
        assert len(layers) > 3
        wanted = {json.dumps(layer.sizes[-1]) for layer in layers}
        timer = FakeTimer(lambda own, _: 0.5 if json.dumps(own) in wanted else 1.0)
        tuned = tune(steps, TARGET, timer, None)
        for layer in layers:
            for number in layer.candidates:
                assert sizes(tuned[number].kernel) == sizes(layer.candidates[number][-1])
        assert timer.calls == 3

    def test_steps_of_one_layer_get_one_tiling(self) -> None:
        steps = lowered("mobilenet").steps
        layers = find_layers(steps, TARGET)
        for layer in layers:
            for candidates in layer.candidates.values():
                assert [sizes(kernel) for kernel in candidates] == layer.sizes
                assert len({kernel.source for kernel in candidates}) == 1
        assert sum(len(layer.candidates) for layer in layers) <= len(steps)

    @pytest.mark.parametrize(
        "seconds",
        [
            lambda own, number: 1.0,
            lambda own, number: 1.0 - 0.0001 * (sum(own) % 100),  # less than is worthwhile
        ],
    )
    def test_compilers_choice_stays_unless_another_is_worthwhile(self, seconds: Callable[..., float]) -> None:
        steps = lowered("resnet18").steps
        timer = FakeTimer(seconds)
        assert [step.kernel for step in tune(steps, TARGET, timer, None)] == [step.kernel for step in steps]
        assert timer.calls == 1

    def test_winner_of_some_rounds_only_is_none(self) -> None:
        steps = lowered("resnet18").steps
        layers = find_layers(steps, TARGET)
        first = {json.dumps(layer.sizes[0]) for layer in layers}
        # Others have half the time in most rounds, and more in too many for a clear result.
        timer = FakeTimer(lambda own, number: 1.0 if json.dumps(own) in first else (0.5, 0.5, 0.5, 1.1, 1.1)[number], 5)
        assert [step.kernel for step in tune(steps, TARGET, timer, None)] == [step.kernel for step in steps]
        assert timer.calls == 3

    def test_what_is_slower_on_one_thread_is_not_chosen(self) -> None:
        steps = lowered("resnet18").steps
        first = {json.dumps(layer.sizes[0]) for layer in find_layers(steps, TARGET)}

        def measure(versions: Sequence[Steps]) -> Times:
            others = [[json.dumps(sizes(step.kernel)) not in first for step in steps] for steps in versions]
            return [[[[1.0 + 0.1 * other for other in own], [1.0 - 0.5 * other for other in own]] for own in others]]

        assert [step.kernel for step in tune(steps, TARGET, measure, None)] == [step.kernel for step in steps]


class TestStore:
    def test_winners_are_kept(self, cache: Cache) -> None:
        steps = lowered("resnet18").steps
        tuned = tune(steps, TARGET, FakeTimer(lambda own, _: 1 / sum(own[-2:])), cache.tilings)
        assert [step.kernel for step in tuned] != [step.kernel for step in steps]
        again = tune(steps, TARGET, fails, cache.tilings)
        assert [step.kernel for step in again] == [step.kernel for step in tuned]

    def test_another_model_measures_only_what_is_new(self, cache: Cache) -> None:
        tune(lowered("resnet18").steps, TARGET, FakeTimer(lambda own, _: 1.0), cache.tilings)
        known = {layer.key for layer in find_layers(lowered("resnet18").steps, TARGET)}
        steps = pipeline.lower_model(
            pipeline.load_model(convolutional.resnet18(blocks=(1, 1, 1)).SerializeToString()), CompileOptions(), TARGET
        ).steps
        layers = find_layers(steps, TARGET)
        assert known & {layer.key for layer in layers}
        changed: set[int] = set()

        def measure(versions: Sequence[Steps]) -> Times:
            for version in versions:
                changed.update(n for n, step in enumerate(version) if step.kernel != steps[n].kernel)
            return FakeTimer(lambda own, _: 1.0)(versions)

        tune(steps, TARGET, measure, cache.tilings)
        assert changed == {number for layer in layers if layer.key not in known for number in layer.candidates}

    def test_another_machine_measures_anew(self, cache: Cache) -> None:
        steps = lowered("resnet18").steps
        tune(steps, TARGET, FakeTimer(lambda own, _: 1.0), cache.tilings)
        other = Target(**{**TARGET.__dict__, "cores": TARGET.cores + 1})
        timer = FakeTimer(lambda own, _: 1.0)
        tune(steps, other, timer, cache.tilings)
        assert timer.calls == 1

    @pytest.mark.parametrize("valid", [True, False])
    @pytest.mark.parametrize("content", [b"", b"[1, 2]", b"{", b"\xff\xfe", b"null"])
    def test_damaged_entry_is_measured_anew(self, cache: Cache, content: bytes, valid: bool) -> None:
        steps = lowered("resnet18").steps
        tuned = tune(steps, TARGET, FakeTimer(lambda own, _: 1 / sum(own[-2:])), cache.tilings)
        for entry in list(cache.tilings.entries()):
            if valid:
                cache.tilings.put(entry.key, content)
            else:
                entry.path.write_bytes(content)
        timer = FakeTimer(lambda own, _: 1 / sum(own[-2:]))
        again = tune(steps, TARGET, timer, cache.tilings)
        assert timer.calls > 0
        assert [step.kernel for step in again] == [step.kernel for step in tuned]
        tune(steps, TARGET, fails, cache.tilings)


class TestModels:
    @pytest.mark.parametrize("name", MODELS)
    def test_no_candidate_changes_a_bit(self, name: str, compiler: Compiler) -> None:
        proto, model = MODELS[name](), lowered(name)
        objects = compiler.pool.compile(step.kernel.source for step in model.steps)
        feed = make_feed(proto, {}, 0)
        expected = run_named(executor_of(compiler.link(model, objects)), feed)
        layers = find_layers(model.steps, TARGET)
        labels = {model.steps[number].label for layer in layers for number in layer.candidates}
        assert labels >= LABELS[name]
        for place in range(1, max(len(layer.sizes) for layer in layers)):
            kernels = {
                number: candidates[min(place, len(candidates) - 1)]
                for layer in layers
                for number, candidates in layer.candidates.items()
            }
            steps = tuple(
                replace(step, kernel=kernels.get(number, step.kernel)) for number, step in enumerate(model.steps)
            )
            compiled = compiler.link(replace(model, steps=steps), objects)
            for threads in (1, 2):
                for result, reference in zip(run_named(executor_of(compiled, threads), feed), expected, strict=True):
                    np.testing.assert_array_equal(result, reference, f"candidate {place}, {threads} threads")

    def test_measured_model_has_the_same_bits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(step_timer, "_SECONDS", 0.0)
        proto = MODELS["resnet18"]()
        stages: list[str] = []
        plain = compiled_in(tmp_path, proto, CompileOptions())
        tuned = compiled_in(tmp_path, proto, CompileOptions(tune=True), lambda stage, *_: stages.append(stage))
        assert "tuning" in stages
        feed = make_feed(proto, {}, 0)
        expected = run_named(executor_of(plain), feed)
        for threads in (1, 2):
            for result, reference in zip(run_named(executor_of(tuned, threads), feed), expected, strict=True):
                np.testing.assert_array_equal(result, reference)
        stages.clear()
        again = compiled_in(tmp_path, proto, CompileOptions(tune=True), lambda stage, *_: stages.append(stage))
        assert "tuning" not in stages
        assert again.program == tuned.program

    def test_off_measures_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(step_timer.StepTimer, "measure", lambda *_: pytest.fail("measured"))
        compiled_in(tmp_path, MODELS["resnet18"](), CompileOptions())
        with pytest.raises(pytest.fail.Exception, match="measured"):
            compiled_in(tmp_path, MODELS["resnet18"](), CompileOptions(tune=True))

    def test_symbolic_model_stays_as_it_is(self, tmp_path: Path) -> None:
        proto = convolutional.resnet18(batch="batch", blocks=(1, 1))
        stages: list[str] = []
        plain = compiled_in(tmp_path, proto, CompileOptions())
        tuned = compiled_in(tmp_path, proto, CompileOptions(tune=True), lambda stage, *_: stages.append(stage))
        assert tuned.program == plain.program and tuned.code == plain.code
        assert stages[-1] == "not tuned, since its inputs have no fixed sizes"

    def test_model_that_fails_on_made_up_inputs_stays_as_it_is(self, tmp_path: Path) -> None:
        declare = helper.make_tensor_value_info
        nodes = [
            helper.make_node("Sub", ["i", "thousand"], ["far"]),
            helper.make_node("MatMul", ["x", "w"], ["p"]),
            helper.make_node("Gather", ["p", "far"], ["y"]),
        ]
        weights = helper.make_tensor("w", TensorProto.FLOAT, (64, 200), np.ones(64 * 200, np.float32))
        graph = helper.make_graph(
            nodes,
            "g",
            [declare("i", TensorProto.INT64, [1]), declare("x", TensorProto.FLOAT, [50, 64])],
            [declare("y", TensorProto.FLOAT, None)],
            [weights, helper.make_tensor("thousand", TensorProto.INT64, (1,), [1000])],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        stages: list[str] = []
        plain = compiled_in(tmp_path, proto, CompileOptions())
        tuned = compiled_in(tmp_path, proto, CompileOptions(tune=True), lambda stage, *_: stages.append(stage))
        assert tuned.program == plain.program
        assert stages[-1].startswith("not tuned, since it does not run on made-up inputs")


def compiled_in(
    cache: Path, proto: onnx.ModelProto, options: CompileOptions, report: pipeline.Progress | None = None
) -> CompiledModel:
    stores, target = open_cache(cache / "cache"), Target.host()
    with CompilePool(target.cores, target, stores.kernels) as pool:
        compiled = compile_model(proto.SerializeToString(), options, pool, report, stores.tilings)
        code = compiled.code
    return replace(compiled, versions=(compiled.versions[0]._replace(link=lambda: code),))
