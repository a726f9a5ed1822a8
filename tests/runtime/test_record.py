"""Records behave as the named tuples that type checkers take them for."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import pytest

from onnxsmith.record import Record


class Point(Record):
    x: int
    y: int = 2
    label: str = ""

    def sum(self) -> int:
        return self.x + self.y


class Twin(NamedTuple):
    x: int
    y: int = 2
    label: str = ""


CALLS = [((1,), {}), ((1, 5), {}), ((1, 5, "a"), {}), ((), {"x": 1}), ((1,), {"label": "b"}), ((), {"y": 1, "x": 3})]


@pytest.mark.parametrize("values, named", CALLS)
def test_as_a_named_tuple(values, named):
    point, twin = Point(*values, **named), Twin(*values, **named)
    assert tuple(point) == tuple(twin) and point == twin and hash(point) == hash(twin)
    assert (point.x, point.y, point.label) == tuple(twin)
    assert repr(point) == repr(twin).replace("Twin", "Point")
    assert point._asdict() == twin._asdict() and point._fields == twin._fields
    assert point._replace(y=7) == twin._replace(y=7) and type(point._replace(y=7)) is Point
    assert Point._make([1, 2, "c"]) == Point(1, 2, "c") and type(Point._make([1, 2, "c"])) is Point
    assert point.sum() == twin.x + twin.y
    for same in (pickle.loads(pickle.dumps(point)), copy.deepcopy(point)):
        assert same == point and type(same) is Point


@pytest.mark.parametrize(
    "values, named", [((), {}), ((1, 2, "", 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})]
)
def test_wrong_fields_are_refused(values, named):
    with pytest.raises(TypeError, match="Point takes the fields x, y, label"):
        Point(*values, **named)


def test_nothing_can_be_changed():
    with pytest.raises(AttributeError):
        Point(1).x = 3
    with pytest.raises(AttributeError):
        Point(1).z = 3


def test_matching():
    match Point(1, 2, "c"):
        case Point(x, label="c"):
            assert x == 1
        case _:
            pytest.fail("does not match")
