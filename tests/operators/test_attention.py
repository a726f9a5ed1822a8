"""Attention and RotaryEmbedding: against the ONNX reference, with sizes only a run knows, and the official cases."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support import Array, Case, Fixed, check, node_case, official_cases

LEVELS = (0, 99)
_RANDOM = np.random.default_rng(3)


def _draw(*shape: int, dtype: Any = np.float32) -> Array:
    return _RANDOM.standard_normal(shape).astype(dtype)


def _attention(
    *inputs: Array | Fixed | None,
    opset: int = 24,
    outputs: int = 1,
    rtol: float = 1e-4,
    atol: float = 2e-6,
    **attributes: Any,
) -> Case:
    return node_case(
        "Attention", *inputs, opset=opset, outputs=outputs, expected="reference", rtol=rtol, atol=atol, **attributes
    )


def _operands(
    batch: int = 2, heads: int = 3, groups: int = 3, rows: int = 4, columns: int = 6, depth: int = 8, width: int = 8,
    dtype: Any = np.float32,
) -> tuple[Array, Array, Array]:  # fmt: skip
    return (
        _draw(batch, heads, rows, depth, dtype=dtype),
        _draw(batch, groups, columns, depth, dtype=dtype),
        _draw(batch, groups, columns, width, dtype=dtype),
    )


def _flat(x: Array) -> Array:
    """[batch, heads, sequence, features] in the form with three axes."""
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)).reshape(x.shape[0], x.shape[2], -1)


def _forms() -> list[Case]:
    q, k, v = _operands()
    grouped = _operands(heads=6, groups=2, width=5)
    flat = tuple(map(_flat, grouped))
    three = {"q_num_heads": 6, "kv_num_heads": 2}
    boolean = _RANDOM.random((4, 6)) < 0.7
    boolean[2] = False
    past = (_draw(2, 3, 5, 8), _draw(2, 3, 5, 8))
    lengths = np.array([6, 2], np.int64)
    return [
        _attention(q, k, v),
        _attention(q, k, v, opset=23),
        _attention(q, k, v, scale=0.3, softcap=2.0),
        _attention(*grouped),
        _attention(*flat, **three),
        _attention(*flat, is_causal=1, **three),
        _attention(*_operands(heads=4, groups=1), is_causal=1),
        _attention(q, k, v, is_causal=1),
        _attention(q, k, v, boolean),
        _attention(q, k, v, Fixed(boolean), is_causal=1),
        _attention(q, k, v, boolean[None, None, :, :4]),
        _attention(q, k, v, _draw(4, 6)),
        _attention(q, k, v, _draw(3, 4, 6)),
        _attention(q, k, v, _draw(2, 1, 1, 6)),
        _attention(q, k, v, _draw(2, 3, 4, 3), is_causal=1),
        _attention(*grouped, _draw(6, 4, 6)),
        _attention(*grouped, _draw(2, 6, 4, 6), is_causal=1),
        _attention(q, k, v, None, *past, outputs=3),
        _attention(q, k, v, None, *past, outputs=3, is_causal=1),
        _attention(q, k, v, _draw(4, 11), *past, outputs=4, qk_matmul_output_mode=2),
        _attention(q, k, v, None, None, None, lengths),
        _attention(q, k, v, None, None, None, lengths, is_causal=1),
        _attention(q, k, v, _draw(2, 3, 4, 6), None, None, lengths, is_causal=1),
        _attention(*grouped, None, None, None, lengths, is_causal=1),
        *(_attention(q, k, v, boolean, outputs=4, softcap=1.5, qk_matmul_output_mode=mode) for mode in (1, 2, 3)),
        *(_attention(*grouped, outputs=4, qk_matmul_output_mode=mode) for mode in range(4)),
        _attention(q, k, v, left_window_size=2, opset=25),
        _attention(q, k, v, left_window_size=1, right_window_size=1, opset=25),
        _attention(q, k, v, None, *past, left_window_size=3, is_causal=1, opset=25, outputs=3),
        _attention(*_operands(batch=1, heads=1, groups=1, rows=1, columns=1, depth=1, width=1)),
        _attention(*_operands(rows=33, columns=65, depth=17, width=31), is_causal=1),
        _attention(*_operands(rows=0)),
        _attention(*_operands(batch=0)),
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_forms_masks_and_caches(level: int) -> None:
    check(_forms(), optimization_level=level)


def test_sizes_known_when_compiled() -> None:
    q, k, v = _operands(heads=4, groups=2)
    check(
        [
            node_case(
                "Attention",
                q,
                k,
                v,
                opset=24,
                expected="reference",
                symbolic=False,
                rtol=1e-4,
                atol=2e-6,
                is_causal=flag,
            )
            for flag in (0, 1)
        ]
    )


def test_types() -> None:
    check([_attention(*_operands(dtype=np.float64), is_causal=1, rtol=1e-11, atol=1e-12)])
    check([_attention(*_operands(dtype=np.float16), softmax_precision=1, rtol=1e-2, atol=5e-3)])
    check([_attention(*_operands(dtype=ml_dtypes.bfloat16), rtol=5e-2, atol=3e-2)])
    q, k, v = _operands()
    check([_attention(q, k, v, softmax_precision=11), _attention(q, k, v, softmax_precision=10, rtol=1e-2, atol=5e-3)])


def _rotary(
    x: Array, *rest: Array | Fixed | None, opset: int = 23, rtol: float = 1e-5, atol: float = 1e-6, **attributes: Any
) -> Case:
    return node_case("RotaryEmbedding", x, *rest, opset=opset, expected="reference", rtol=rtol, atol=atol, **attributes)


@pytest.mark.parametrize("level", LEVELS)
def test_rotary_embedding(level: int) -> None:
    four, three = _draw(2, 4, 5, 8), _draw(2, 5, 32)
    positions = _RANDOM.integers(0, 50, (2, 5))
    cache = (_draw(50, 4), _draw(50, 4))
    some = (_draw(50, 2), _draw(50, 2))
    direct = (_draw(2, 5, 4), _draw(2, 5, 4))
    narrow = tuple(a.astype(np.float16) for a in (four, *cache))
    cases = [
        _rotary(four, *cache, positions),
        _rotary(four, *cache, positions, interleaved=1),
        _rotary(three, *cache, positions, num_heads=4),
        _rotary(three, *cache, positions, num_heads=4, interleaved=1),
        _rotary(four, *some, positions, rotary_embedding_dim=4),
        _rotary(three, *some, positions, rotary_embedding_dim=4, num_heads=4, interleaved=1),
        _rotary(four, *direct),
        _rotary(three, *direct, num_heads=4),
        _rotary(four, *map(Fixed, cache), positions),
        _rotary(narrow[0], narrow[1], narrow[2], positions, rtol=5e-3, atol=5e-3),
    ]
    check(cases, optimization_level=level)


def test_official_cases() -> None:
    check(official_cases("Attention", "RotaryEmbedding"))
