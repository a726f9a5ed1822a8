"""Numbers as int64 keys of the same order, and heaps and merge sorts over such keys.

A key orders NaN above everything else, makes all NaNs equal, and -0 and 0 too.
"""

from __future__ import annotations

from typing import Any

from numpy import int64

from onnxsmith_compiler.codegen.intrinsics import load, store
from onnxsmith_compiler.codegen.kernel_function import Helper, helper
from onnxsmith_compiler.codegen.scalar import float_to_bits, minimum, select

INT64_MIN = -(1 << 63)


@helper("int64", "float32")
def order_key_f32(x: Any) -> Any:
    """The key of a float32."""
    bits = int64(float_to_bits(x))
    magnitude = bits & int64(0x7FFFFFFF)
    key = select(bits < 0, -magnitude, magnitude)
    return select(magnitude > 0x7F800000, int64(0x80000000), key)


@helper("int64", "float64")
def order_key_f64(x: Any) -> Any:
    """The key of a float64."""
    bits = float_to_bits(x)
    magnitude = bits & int64(0x7FFFFFFFFFFFFFFF)
    key = select(bits < 0, -magnitude, magnitude)
    return select(magnitude > 0x7FF0000000000000, int64(0x7FFFFFFFFFFFFFFF), key)


@helper("int64", "uint64")
def order_key_u64(x: Any) -> Any:
    """The key of a uint64."""
    return int64(x) ^ int64(INT64_MIN)


@helper("void", "int64*", "int64*", "int64", "int64")
def sift_down(keys: Any, places: Any, root: Any, count: Any) -> None:
    """Restores a heap of `count` pairs below `root`; its top is the least key, of those the last place."""
    key = load(keys, root)
    place = load(places, root)
    while 2 * root + 1 < count:
        child = 2 * root + 1
        child_key = load(keys, child)
        child_place = load(places, child)
        if child + 1 < count:
            other_key = load(keys, child + 1)
            other_place = load(places, child + 1)
            if other_key < child_key or (other_key == child_key and other_place > child_place):
                child += 1
                child_key = other_key
                child_place = other_place
        if key < child_key or (key == child_key and place > child_place):
            break
        store(keys, root, child_key)
        store(places, root, child_place)
        root = child
    store(keys, root, key)
    store(places, root, place)


@helper("int64", "int64*", "int64", "int64", "int64")
def compare_items(keys: Any, left: Any, right: Any, length: Any) -> Any:
    """-1, 0 or 1 as item `left` is before, equal to or after item `right`; an item is `length` keys."""
    for number in range(length):
        a = load(keys, left * length + number)
        b = load(keys, right * length + number)
        if a != b:
            return select(a < b, int64(-1), int64(1))
    return int64(0)


@helper("void", "int64*", "int64", "int64*", "int64*", "int64")
def sort_items(keys: Any, length: Any, order: Any, spare: Any, count: Any) -> None:
    """order = the numbers of `count` items of `length` keys each, sorted and stable; `spare` has room for as many."""
    for number in range(count):
        store(order, number, number)
    width = int64(1)
    while width < count:
        start = int64(0)
        while start < count:
            middle = minimum(start + width, count)
            stop = minimum(middle + width, count)
            left = start
            right = middle
            for number in range(start, stop):
                take_left = right >= stop
                if left < middle and right < stop:
                    take_left = compare_items(keys, load(order, left), load(order, right), length) <= 0
                if take_left:
                    store(spare, number, load(order, left))
                    left += 1
                else:
                    store(spare, number, load(order, right))
                    right += 1
            start = stop
        for number in range(count):
            store(order, number, load(spare, number))
        width *= 2


ORDER_KEYS: dict[str, Helper] = {
    function.name: function
    for function in (order_key_f32, order_key_f64, order_key_u64, sift_down, compare_items, sort_items)
}
"""The helpers of this file, by the name that kernels use."""
