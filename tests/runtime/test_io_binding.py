"""OrtValue and IOBinding, side by side with onnxruntime's."""

from __future__ import annotations

import ctypes
import pickle
from pathlib import Path

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import helper
from small_models import model, tensor

import onnxsmith
from onnxsmith import OrtValue

BOTH = pytest.mark.parametrize("ort", [onnxruntime, onnxsmith], ids=["onnxruntime", "onnxsmith"])


@pytest.fixture
def x() -> np.ndarray:
    return np.arange(6, dtype=np.float32).reshape(2, 3)


class TestOrtValue:
    @BOTH
    def test_describes_an_array_whose_memory_it_shares(self, ort, x):
        value = ort.OrtValue.ortvalue_from_numpy(x)
        assert (value.shape(), value.data_type(), value.element_type()) == ([2, 3], "tensor(float)", 1)
        assert (value.device_name(), value.tensor_size_in_bytes()) == ("cpu", 24)
        assert (value.has_value(), value.is_tensor()) == (True, True)
        assert (value.is_sparse_tensor(), value.is_tensor_sequence()) == (False, False)
        assert value.data_ptr() == x.ctypes.data
        value.update_inplace(x + 1)
        assert x[0, 0] == 1
        value.update_inplace(np.arange(6, dtype=np.float32).reshape(3, 2).T.reshape(3, 2))
        np.testing.assert_array_equal(value.numpy().ravel(), [0, 2, 4, 1, 3, 5])
        with pytest.raises(RuntimeError, match="does not match the size"):
            value.update_inplace(np.zeros(7, np.float32))

    @BOTH
    def test_of_a_shape_and_type(self, ort):
        for element_type, name in (
            (np.float32, "float"),
            (np.int64, "int64"),
            (10, "float16"),
            (16, "bfloat16"),
        ):
            value = ort.OrtValue.ortvalue_from_shape_and_type([2, 3], element_type)
            assert (value.shape(), value.data_type()) == ([2, 3], f"tensor({name})")

    @BOTH
    def test_bits_seen_as_another_type(self, ort):
        bits = np.array([0x3F80, 0xC000], np.uint16)
        value = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, 16)
        assert (value.data_type(), value.data_ptr()) == ("tensor(bfloat16)", bits.ctypes.data)

    @BOTH
    def test_what_is_refused(self, ort, x):
        for bad in (np.array(["a"]), np.array(["a"], object), [1.0]):
            with pytest.raises(RuntimeError, match="non-string numpy arrays"):
                ort.OrtValue.ortvalue_from_numpy(bad)
        with pytest.raises(RuntimeError):
            ort.OrtValue.ortvalue_from_numpy(x, "cuda", 0)
        with pytest.raises(RuntimeError):
            ort.OrtValue.from_dlpack(x.T)

    @BOTH
    def test_dlpack(self, ort, x):
        value = ort.OrtValue.from_dlpack(x)
        assert value.data_ptr() == x.ctypes.data
        assert value.__dlpack_device__() == (1, 0)
        assert np.shares_memory(np.from_dlpack(value), x)
        assert ort.OrtValue.from_dlpack(x.__dlpack__()).data_ptr() == x.ctypes.data

    @BOTH
    def test_as_array(self, ort, x):
        value = ort.OrtValue.ortvalue_from_numpy(x)
        assert np.asarray(value, np.float64).dtype == np.float64
        assert not np.shares_memory(np.array(value), x)

    def test_types_that_numpy_lacks(self):
        array = np.array([1, -2], ml_dtypes.bfloat16)
        assert OrtValue.ortvalue_from_numpy(array).data_type() == "tensor(bfloat16)"
        view = OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), 16).numpy()
        np.testing.assert_array_equal(view, array)
        with pytest.raises(onnxsmith.errors.InvalidArgument, match="widths differ"):
            OrtValue.ortvalue_from_numpy_with_onnx_type(array, 1)
        for unknown in (0, 99, "M8"):
            with pytest.raises(RuntimeError, match="no element type"):
                OrtValue.ortvalue_from_shape_and_type([1], unknown)

    @BOTH
    def test_runs(self, ort, add_model, x):
        session = ort.InferenceSession(add_model)
        value = ort.OrtValue.ortvalue_from_numpy(x)
        (z,) = session.run_with_ort_values(None, {"x": value, "y": value})
        np.testing.assert_array_equal(z.numpy(), x + x)
        np.testing.assert_array_equal(session.run(None, {"x": value, "y": x})[0], x + x)
        with pytest.raises(ValueError, match="Required inputs"):
            session.run_with_ort_values(None, {"x": value})


class TestIOBinding:
    @BOTH
    def test_new_outputs_at_each_run(self, ort, add_model, x):
        session = ort.InferenceSession(add_model)
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_cpu_input("y", np.ascontiguousarray(x.T).T)
        binding.bind_output("z")
        for _ in range(2):
            session.run_with_iobinding(binding)
            np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], x + x)
        assert binding.get_outputs()[0].shape() == [2, 3]
        binding.synchronize_inputs()
        binding.synchronize_outputs()

    @BOTH
    def test_outputs_into_the_callers_memory(self, ort, add_model, x):
        session = ort.InferenceSession(add_model)
        binding = session.io_binding()
        out = np.zeros((2, 3), np.float32)
        binding.bind_input("x", "cpu", 0, np.float32, [2, 3], x.ctypes.data)
        binding.bind_ortvalue_input("y", ort.OrtValue.ortvalue_from_numpy(x))
        binding.bind_output("z", "cpu", 0, np.float32, [2, 3], out.ctypes.data)
        session.run_with_iobinding(binding)
        np.testing.assert_array_equal(out, x + x)
        x += 1
        session.run_with_iobinding(binding)
        np.testing.assert_array_equal(out, x + x)
        assert binding.get_outputs()[0].data_ptr() == out.ctypes.data
        copies = binding.copy_outputs_to_cpu()
        assert not np.shares_memory(copies[0], out)
        other = np.zeros((2, 3), np.float32)
        binding.bind_ortvalue_output("z", ort.OrtValue.ortvalue_from_numpy(other))
        session.run_with_iobinding(binding)
        np.testing.assert_array_equal(other, x + x)

    @BOTH
    def test_an_output_may_be_an_input(self, ort, add_model, x):
        session = ort.InferenceSession(add_model)
        binding = session.io_binding()
        state = np.ones((2, 3), np.float32)
        for name in ("x", "y"):
            binding.bind_cpu_input(name, state)
        binding.bind_output("z", "cpu", 0, np.float32, [2, 3], state.ctypes.data)
        for _ in range(3):
            session.run_with_iobinding(binding)
        np.testing.assert_array_equal(state, np.full((2, 3), 8))

    @BOTH
    def test_what_is_refused(self, ort, add_model, x):
        session = ort.InferenceSession(add_model)
        binding = session.io_binding()
        with pytest.raises(RuntimeError, match="Failed to find NodeArg with name: q"):
            binding.bind_cpu_input("q", x)
        binding.bind_cpu_input("x", x)
        binding.bind_cpu_input("y", x)
        with pytest.raises(RuntimeError, match="At least one output should be requested"):
            session.run_with_iobinding(binding)
        bad = np.zeros((3, 3), np.float32)
        binding.bind_output("z", "cpu", 0, np.float32, [3, 3], bad.ctypes.data)
        with pytest.raises(RuntimeError, match="Error in execution"):
            session.run_with_iobinding(binding)
        double = np.zeros((2, 3))
        binding.bind_output("z", "cpu", 0, np.float64, [2, 3], double.ctypes.data)
        with pytest.raises(RuntimeError, match="Error in execution"):
            session.run_with_iobinding(binding)
        assert not bad.any() and not double.any()
        with pytest.raises(ValueError, match="element_type"):
            binding.bind_output("z", "cpu", 0, None, None, bad.ctypes.data)
        binding.bind_output("z")
        binding.bind_cpu_input("y", x[:, :2])
        with pytest.raises(RuntimeError, match="index: 1 Got: 2 Expected: 3"):
            session.run_with_iobinding(binding)
        binding.bind_cpu_input("y", x)
        binding.clear_binding_outputs()
        with pytest.raises(RuntimeError, match="At least one output"):
            session.run_with_iobinding(binding)
        with pytest.raises(ValueError, match="session that created it"):
            ort.InferenceSession(add_model).run_with_iobinding(binding)

    def test_a_missing_input_is_named(self, add_model, x):
        session = onnxsmith.InferenceSession(add_model)
        binding = session.io_binding()
        binding.bind_cpu_input("x", x)
        binding.bind_output("z")
        with pytest.raises(RuntimeError, match=r"Required inputs \(\['y'\]\) are missing"):
            session.run_with_iobinding(binding)

    def test_unknown_output_and_device_are_refused_at_once(self, add_model):
        binding = onnxsmith.InferenceSession(add_model).io_binding()
        with pytest.raises(RuntimeError, match="name: q"):
            binding.bind_output("q")
        with pytest.raises(RuntimeError, match="'cuda'"):
            binding.bind_output("z", "cuda")

    def test_memory_of_ctypes(self, relu_model):
        memory = (ctypes.c_float * 3)(-1, 0, 2)
        session = onnxsmith.InferenceSession(relu_model)
        binding = session.io_binding()
        binding.bind_input("x", "cpu", 0, 1, [3], ctypes.addressof(memory))
        binding.bind_output("y")
        session.run_with_iobinding(binding)
        assert binding.get_outputs()[0].numpy().tolist() == [0, 0, 2]

    def test_profiled(self, relu_model, tmp_path):
        options = onnxsmith.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        session = onnxsmith.InferenceSession(relu_model, options)
        out = np.zeros(2, np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input("x", np.array([-1, 3], np.float32))
        binding.bind_ortvalue_output("y", OrtValue.ortvalue_from_numpy(out))
        session.run_with_iobinding(binding)
        assert out.tolist() == [0, 3]
        binding.bind_ortvalue_output("y", OrtValue.ortvalue_from_numpy(np.zeros(3, np.float32)))
        with pytest.raises(RuntimeError, match="memory given for output 'y'"):
            session.run_with_iobinding(binding)
        assert "relu_kernel_time" in Path(session.end_profiling()).read_text()


def test_native_code_takes_arrays_with_a_dtype_object_of_their_own(relu_model, monkeypatch):
    """Unpickled arrays have one; bound ones must not go the slow way at each run."""
    session = onnxsmith.InferenceSession(relu_model)
    out = pickle.loads(pickle.dumps(np.zeros(2, np.float32)))
    assert out.dtype is not np.dtype(np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", pickle.loads(pickle.dumps(np.array([-1, 3], np.float32))))
    binding.bind_ortvalue_output("y", OrtValue.ortvalue_from_numpy(out))
    session.run_with_iobinding(binding)
    monkeypatch.setattr(session._executor, "_segments", None)
    session.run_with_iobinding(binding)
    assert out.tolist() == [0, 3]


def test_bound_runs_of_changing_shapes_and_contents() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    session = onnxsmith.InferenceSession(model([relu], [tensor("x", ["N"])], [tensor("y", ["N"])]))
    bindings = []
    for size in (3, 5, 0):
        binding, x, y = session.io_binding(), np.zeros(size, np.float32), np.zeros(size, np.float32)
        binding.bind_cpu_input("x", x)
        binding.bind_ortvalue_output("y", onnxsmith.OrtValue.ortvalue_from_numpy(y))
        bindings.append((binding, x, y))
    for turn in range(4):
        for binding, x, y in bindings:
            x[:] = np.arange(x.size) - turn
            session.run_with_iobinding(binding)
            np.testing.assert_array_equal(y, np.maximum(x, 0))
            assert binding.get_outputs()[0].numpy() is y


class TestInPlace:
    """A cache that is bound to a model's input and output grows where it is."""

    LENGTH = 6

    @pytest.fixture
    def session(self):
        nodes = [
            helper.make_node("TensorScatter", ["past", "new", "at"], ["present"], axis=1),
            helper.make_node("ReduceSum", ["present", "axes"], ["total"], keepdims=0),
        ]
        inputs = [tensor("past", [1, self.LENGTH, 2]), tensor("new", [1, 1, 2]), tensor("at", [1], 7)]
        outputs = [tensor("present", [1, self.LENGTH, 2]), tensor("total", [1, 2])]
        axes = [helper.make_tensor("axes", 7, [1], [1])]
        return onnxsmith.InferenceSession(model(nodes, inputs, outputs, axes, opset=24))

    def test_only_the_update_is_written(self, session):
        assert session.program.in_place == ((0, 0),)
        cache = np.zeros((1, self.LENGTH, 2), np.float32)
        new, at = np.zeros((1, 1, 2), np.float32), np.zeros(1, np.int64)
        binding = session.io_binding()
        value = OrtValue.ortvalue_from_numpy(cache)
        binding.bind_ortvalue_input("past", value)
        binding.bind_cpu_input("new", new)
        binding.bind_cpu_input("at", at)
        binding.bind_ortvalue_output("present", value)
        total = np.zeros((1, 2), np.float32)
        binding.bind_ortvalue_output("total", OrtValue.ortvalue_from_numpy(total))
        for step in range(self.LENGTH):
            new[:], at[:] = step + 1, step
            session.run_with_iobinding(binding)
            np.testing.assert_array_equal(total, np.full((1, 2), sum(range(step + 2))))
        np.testing.assert_array_equal(cache[0, :, 0], np.arange(1, self.LENGTH + 1))

    def test_memory_that_overlaps_otherwise_is_copied(self, session):
        memory = np.arange(2 * (self.LENGTH + 1), dtype=np.float32)
        past = memory[: 2 * self.LENGTH].reshape(1, self.LENGTH, 2)
        present = memory[2:].reshape(1, self.LENGTH, 2)
        expected = past.copy()
        expected[0, 4] = -1
        binding = session.io_binding()
        binding.bind_ortvalue_input("past", OrtValue(past))
        binding.bind_cpu_input("new", np.full((1, 1, 2), -1, np.float32))
        binding.bind_cpu_input("at", np.array([4]))
        binding.bind_ortvalue_output("present", OrtValue(present))
        session.run_with_iobinding(binding)
        np.testing.assert_array_equal(present, expected)

    def test_an_input_that_others_read_too_is_not_changed(self):
        nodes = [
            helper.make_node("TensorScatter", ["past", "new"], ["present"], axis=1),
            helper.make_node("Sub", ["present", "past"], ["change"]),
        ]
        inputs = [tensor("past", [1, 3, 2]), tensor("new", [1, 1, 2])]
        outputs = [tensor("present", [1, 3, 2]), tensor("change", [1, 3, 2])]
        session = onnxsmith.InferenceSession(model(nodes, inputs, outputs, opset=24))
        assert session.program.in_place == ()
        cache = OrtValue.ortvalue_from_numpy(np.ones((1, 3, 2), np.float32))
        binding = session.io_binding()
        binding.bind_ortvalue_input("past", cache)
        binding.bind_cpu_input("new", np.full((1, 1, 2), 5, np.float32))
        binding.bind_ortvalue_output("present", cache)
        binding.bind_output("change")
        session.run_with_iobinding(binding)
        np.testing.assert_array_equal(binding.get_outputs()[1].numpy()[0, :, 0], [4, 0, 0])
        np.testing.assert_array_equal(cache.numpy()[0, :, 0], [5, 1, 1])
