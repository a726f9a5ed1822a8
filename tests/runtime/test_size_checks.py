"""Sizes that the compiler took to fit: every run verifies them before kernels rely on them."""

from __future__ import annotations

import numpy as np
import pytest
from hand_programs import Draft, make_executor, positives_program, slot
from onnx import TensorProto, helper
from small_models import model, tensor

import onnxsmith
from onnxsmith import program_json
from onnxsmith.errors import Fail
from onnxsmith.faults import SizeFault
from onnxsmith.program import Check, Program, Relation
from onnxsmith.program_check import check_program

INT64 = TensorProto.INT64


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def checked_sum(relation: Relation) -> Program:
    """z = x + y of shapes [n] and [m], which the check relates."""
    draft = Draft("n", "m")
    x, y, z = draft.input("x", [0]), draft.input("y", [1]), draft.output("z", [0])
    draft.step("add", [x, y, z, slot(0)], draft.tiles(0))
    return with_checks(draft.program(), 0, Check(0, 1, relation, "sum"))


def with_checks(program: Program, segment: int, *checks: Check) -> Program:
    segments = list(program.segments)
    segments[segment] = segments[segment]._replace(checks=checks)
    return program._replace(segments=tuple(segments))


@pytest.mark.parametrize(
    ("relation", "fits", "does_not_fit"),
    [
        (Relation.EQUAL, [(3, 3), (0, 0)], [(3, 4), (1, 3), (0, 1)]),
        (Relation.BROADCAST, [(3, 3), (1, 3), (0, 1)], [(3, 4), (0, 2)]),
        (Relation.AT_MOST, [(3, 3), (2, 3), (0, 1)], [(4, 3), (1, 0)]),
    ],
)
def test_relations(relation: Relation, fits: list[tuple[int, int]], does_not_fit: list[tuple[int, int]]) -> None:
    executor = make_executor(checked_sum(relation))
    for n, m in [*fits, *does_not_fit, *fits]:
        if (n, m) in fits:
            assert executor.run([zeros(n), zeros(m)])[0].shape == (n,)
            continue
        with pytest.raises(SizeFault) as caught:
            executor.run([zeros(n), zeros(m)])
        fault = caught.value
        assert (fault.segment, fault.number, fault.left, fault.right) == (0, 0, n, m)


def test_later_segments_are_checked_with_the_values_of_this_run() -> None:
    """A refused run leaves nothing behind: the next one with the values of the run before it is right."""
    program = with_checks(positives_program(), 1, Check(1, 2, Relation.AT_MOST, "double"))
    assert program.slots[2] == 1
    executor = make_executor(program)
    few, many = np.array([-1, 2, -3], np.float32), np.array([4, 2, -3], np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(executor.run([few])[0], [4])
        with pytest.raises(SizeFault):
            executor.run([many])


def test_checks_are_kept_on_disk_and_verified() -> None:
    program = checked_sum(Relation.BROADCAST)
    assert program_json.decode(program_json.encode(program)) == program
    late = with_checks(positives_program(), 0, Check(0, 1, Relation.EQUAL))
    with pytest.raises(ValueError, match="segment 0: check 0: it compares a slot without a value"):
        check_program(late)


@pytest.mark.parametrize(
    ("node", "types", "good", "bad", "message"),
    [
        (
            helper.make_node("Add", ["x", "z"], ["y"], name="sum"),
            (["a"], ["b"], 1),
            ((3,), (1,)),
            ((3,), (4,)),
            r"'sum'.*3 and 4.*broadcast",
        ),
        (
            helper.make_node("MatMul", ["x", "z"], ["y"], name="product"),
            (["a", "b"], ["c", "d"], 1),
            ((2, 3), (3, 4)),
            ((2, 3), (4, 5)),
            r"'product'.*3 and 4.*equal",
        ),
        (
            helper.make_node("Concat", ["x", "z"], ["y"], name="both", axis=0),
            (["a", "b"], ["c", "d"], 1),
            ((2, 3), (4, 3)),
            ((2, 3), (4, 5)),
            r"'both'.*3 and 5.*equal",
        ),
        (
            helper.make_node("Conv", ["x", "z"], ["y"], name="conv", kernel_shape=[3]),
            ([1, "c", "w"], [4, "i", "k"], 1),
            ((1, 2, 8), (4, 2, 3)),
            ((1, 2, 8), (4, 2, 2)),
            r"'conv'.*2 and 3.*equal",
        ),
        (
            helper.make_node("GatherElements", ["x", "z"], ["y"], name="pick", axis=1),
            (["a", "b"], ["c", "d"], INT64),
            ((2, 3), (1, 4)),
            ((2, 3), (3, 4)),
            r"'pick'.*3 and 2.*not be larger",
        ),
    ],
    ids=lambda value: value.op_type if hasattr(value, "op_type") else "",
)
def test_sizes_that_do_not_fit_are_an_error_naming_the_node(node, types, good, bad, message) -> None:
    left, right, kind = types
    session = onnxsmith.InferenceSession(
        model([node], [tensor("x", left), tensor("z", right, kind)], [tensor("y", None)])
    )
    dtype = np.int64 if kind == INT64 else np.float32
    for _ in range(2):
        session.run(None, {"x": zeros(*good[0]), "z": zeros(*good[1]).astype(dtype)})
        with pytest.raises(Fail, match=message):
            session.run(None, {"x": zeros(*bad[0]), "z": zeros(*bad[1]).astype(dtype)})


def test_sizes_known_in_mid_run_are_checked() -> None:
    """The shape of the reshaped tensor is data: whether it can be added shows when the model runs."""
    session = onnxsmith.InferenceSession(
        model(
            [
                helper.make_node("Reshape", ["x", "shape"], ["r"], name="turn"),
                helper.make_node("Add", ["r", "z"], ["y"], name="sum"),
            ],
            [tensor("x", ["a"]), tensor("shape", [2], INT64), tensor("z", ["b", 2])],
            [tensor("y", None)],
        )
    )
    feed = {"x": zeros(6), "z": zeros(3, 2)}
    for _ in range(2):
        assert session.run(None, feed | {"shape": np.array([-1, 2])})[0].shape == (3, 2)
        with pytest.raises(Fail, match=r"'sum'.*2 and 3"):
            session.run(None, feed | {"shape": np.array([2, 3])})
