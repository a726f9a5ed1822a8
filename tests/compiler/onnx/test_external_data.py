"""External data: what may be read, and the ways out of the folder known from CVEs of the onnx package."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_builders import NODE, float_info, make_model, weight_model
from onnx import TensorProto, helper, numpy_helper

from onnxsmith_compiler import errors
from onnxsmith_compiler.onnx import external_data
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.onnx.model import Model, SparseTensor

WEIGHTS = np.arange(6, dtype=np.float32)
SECRET = b"a file outside of the model's folder"


def external_tensor(
    location: str,
    shape: tuple[int, ...] = (6,),
    code: int = TensorProto.FLOAT,
    name: str = "w",
    **entries: object,
) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=code, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def write_model(folder: Path, tensor: onnx.TensorProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(weight_model(tensor).SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with `weights.bin` in it, and `secret.bin` next to it."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    inner = tmp_path / "model"
    inner.mkdir()
    (inner / "weights.bin").write_bytes(b"pad!" + WEIGHTS.tobytes())
    return inner


def weights_of(model: Model) -> np.ndarray:
    return model.graph.initializers["w"]


def test_data_is_a_view_of_the_file(folder: Path) -> None:
    path = write_model(folder, external_tensor("weights.bin", offset=4, length=24))
    model = load_model(path)
    assert np.array_equal(weights_of(model), WEIGHTS)
    assert not weights_of(model).flags.owndata and not weights_of(model).flags.writeable
    (file,) = model.external_files
    status = os.stat(folder / "weights.bin")
    assert (file.path, file.size) == (str(folder / "weights.bin"), 28)
    assert (file.device, file.inode, file.mtime_ns) == (status.st_dev, status.st_ino, status.st_mtime_ns)


@pytest.mark.parametrize("location", ["weights.bin", "./weights.bin", "sub/weights.bin", "sub/./weights.bin"])
def test_locations_below_the_folder(folder: Path, location: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    model = load_model(write_model(folder, external_tensor(location, offset=4)))
    assert np.array_equal(weights_of(model), WEIGHTS)


def test_without_length_and_offset(folder: Path) -> None:
    model = load_model(write_model(folder, external_tensor("weights.bin", (7,))))
    assert np.array_equal(weights_of(model)[1:], WEIGHTS)


def test_the_onnx_packages_own_external_files(folder: Path) -> None:
    weights = {f"w{index}": np.random.default_rng(index).standard_normal((50, 70), np.float32) for index in range(3)}
    names = list(weights)
    nodes = [NODE("Add", [("x", "a", "b")[index], names[index]], [("a", "b", "y")[index]]) for index in range(3)]
    proto = make_model(
        nodes,
        inputs=[float_info("x", (50, 70))],
        initializers=[numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="all.data")
    model = load_model(folder / "m.onnx")
    assert all(np.array_equal(model.graph.initializers[name], value) for name, value in weights.items())
    assert [Path(file.path).name for file in model.external_files] == ["all.data"]


@pytest.mark.parametrize(("code", "count", "data"), [
    (TensorProto.INT4, 3, b"\x21\x0f"),
    (TensorProto.BFLOAT16, 2, b"\x80\x3f\0\0"),
    (TensorProto.BOOL, 3, b"\0\1\5"),
])  # fmt: skip
def test_element_types(folder: Path, code: int, count: int, data: bytes) -> None:
    (folder / "weights.bin").write_bytes(data)
    array = weights_of(load_model(write_model(folder, external_tensor("weights.bin", (count,), code))))
    inline = TensorProto(data_type=code, dims=[count], raw_data=data)
    if code == TensorProto.BOOL:
        assert array.tolist() == [False, True, True]
    else:
        assert array.tobytes() == numpy_helper.to_array(inline).tobytes()


def test_empty_tensors_and_empty_files(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"")
    assert weights_of(load_model(write_model(folder, external_tensor("weights.bin", (0,))))).shape == (0,)


def test_base_dir(folder: Path) -> None:
    proto = weight_model(external_tensor("weights.bin", offset=4))
    for source in (proto, proto.SerializeToString()):
        with pytest.raises(errors.ExternalDataError, match="needs base_dir"):
            load_model(source)
        assert np.array_equal(weights_of(load_model(source, base_dir=folder)), WEIGHTS)
    elsewhere = folder.parent / "elsewhere.onnx"
    elsewhere.write_bytes(proto.SerializeToString())
    assert np.array_equal(weights_of(load_model(elsewhere, base_dir=folder)), WEIGHTS)


def test_a_relative_path_without_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(folder, external_tensor("weights.bin", offset=4))
    monkeypatch.chdir(folder)
    assert np.array_equal(weights_of(load_model("model.onnx")), WEIGHTS)


def test_more_files_than_are_kept_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "_MAX_MAPPINGS", 0)
    array = weights_of(load_model(write_model(folder, external_tensor("weights.bin", offset=4))))
    assert np.array_equal(array, WEIGHTS) and not array.flags.writeable


def refused(path: Path, message: str) -> None:
    with pytest.raises(errors.ExternalDataError, match=message) as caught:
        load_model(path)
    assert "model.onnx" in caught.value.message and "initializer 'w'" in caught.value.message
    assert caught.value.code == "Fail"


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",  # CVE-2022-25882
        "sub/../../secret.bin",
        "sub/..",
        "..",
        "..\\secret.bin",
        "sub//weights.bin",
        "/etc/passwd",  # CVE-2024-27318
        "//etc/passwd",
        "weights.bin\0.txt",
        ".",
        "a/" * 3000 + "b",
    ],
)
def test_paths_out_of_the_folder(folder: Path, location: str) -> None:
    refused(write_model(folder, external_tensor(location)), "not a plain path below the model's folder")


def test_an_absolute_path_into_the_folder_is_refused_too(folder: Path) -> None:
    refused(write_model(folder, external_tensor(str(folder / "weights.bin"))), "not a plain path")


def test_onnxruntimes_marker_for_addresses_is_only_a_name(folder: Path) -> None:
    path = write_model(folder, external_tensor("*/_ORT_MEM_ADDR_/*", offset=140000000000000))
    refused(path, "does not exist")


def test_symbolic_links(folder: Path) -> None:
    """CVE-2026-27489."""
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    refused(write_model(folder, external_tensor("link.bin")), "a link")
    (folder / "inner.bin").symlink_to("weights.bin")
    refused(write_model(folder, external_tensor("inner.bin")), "a link")
    (folder / "up").symlink_to(folder.parent, target_is_directory=True)
    refused(write_model(folder, external_tensor("up/secret.bin")), "a link or no folder")
    (folder / "dangling.bin").symlink_to("nothing")
    refused(write_model(folder, external_tensor("dangling.bin")), "a link")


def test_hard_links(folder: Path) -> None:
    """CVE-2026-34446."""
    os.link(folder.parent / "secret.bin", folder / "hard.bin")
    refused(write_model(folder, external_tensor("hard.bin")), "has 2 hard links")


def test_what_is_no_regular_file(folder: Path) -> None:
    (folder / "sub").mkdir()
    refused(write_model(folder, external_tensor("sub")), "not a regular file")
    os.mkfifo(folder / "pipe")
    refused(write_model(folder, external_tensor("pipe")), "not a regular file")
    refused(write_model(folder, external_tensor("weights.bin/more")), "a link or no folder")
    refused(write_model(folder, external_tensor("missing.bin")), "'missing.bin' does not exist")


def test_a_file_swapped_for_a_link_while_it_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks look at the file that is open, so a path that changes under them gains nothing."""
    path = write_model(folder, external_tensor("weights.bin", offset=4))
    target = folder / "weights.bin"
    weights_inode = target.stat().st_ino
    real_fstat = os.fstat

    def swap_then_fstat(descriptor: int) -> os.stat_result:
        if real_fstat(descriptor).st_ino == weights_inode:
            target.rename(folder / "moved")
            target.symlink_to(folder.parent / "secret.bin")
        return real_fstat(descriptor)

    monkeypatch.setattr(external_data.os, "fstat", swap_then_fstat)
    assert np.array_equal(weights_of(load_model(path)), WEIGHTS)


def test_a_folder_swapped_for_a_link_while_it_is_walked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sub, secret = folder / "sub", folder.parent / "other"
    for place, content in ((sub, b"pad!" + WEIGHTS.tobytes()), (secret, bytes(28))):
        place.mkdir()
        (place / "weights.bin").write_bytes(content)
    path = write_model(folder, external_tensor("sub/weights.bin", offset=4))
    real_open = os.open

    def swap_then_open(name: str, flags: int, *rest: int, dir_fd: int | None = None) -> int:
        if name == "weights.bin":
            sub.rename(folder / "moved")
            sub.symlink_to(secret, target_is_directory=True)
        return real_open(name, flags, *rest, dir_fd=dir_fd)

    monkeypatch.setattr(external_data.os, "open", swap_then_open)
    monkeypatch.setattr(external_data.os, "supports_dir_fd", {swap_then_open})
    assert np.array_equal(weights_of(load_model(path)), WEIGHTS)


def test_a_file_that_shrinks_while_it_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_model(folder, external_tensor("weights.bin", offset=4))
    target = folder / "weights.bin"
    content, weights_inode = target.read_bytes(), target.stat().st_ino
    real_fstat = os.fstat

    def fstat_then_shrink(descriptor: int) -> os.stat_result:
        status = real_fstat(descriptor)
        if status.st_ino == weights_inode:
            os.truncate(target, 8)
        return status

    monkeypatch.setattr(external_data.os, "fstat", fstat_then_shrink)
    for mappings in (256, 0):
        target.write_bytes(content)
        monkeypatch.setattr(external_data, "_MAX_MAPPINGS", mappings)
        refused(path, "it shrank while it was")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"offset": 8},
            "24 bytes at offset 8 are not in .*'weights.bin', which has 28 bytes",
        ),  # CVE-2024-27319
        ({"offset": 1 << 62}, "are not in"),
        ({"offset": -4}, "offset '-4' is not a size"),
        ({"offset": "0x4"}, "is not a size"),
        ({"offset": " 4"}, "is not a size"),
        ({"offset": "٤"}, "is not a size"),
        ({"offset": "9" * 5000}, "is not a size"),
        ({"length": 20}, "20 bytes by its 'length', the tensor 24"),
        ({"length": 28}, "28 bytes by its 'length', the tensor 24"),
        ({"length": ""}, "is not a size"),
    ],
)
def test_offsets_and_lengths(folder: Path, entries: dict[str, object], message: str) -> None:
    refused(write_model(folder, external_tensor("weights.bin", **entries)), message)


def test_a_tensor_larger_than_its_file_is_refused_before_memory_is_asked_for(folder: Path) -> None:
    refused(write_model(folder, external_tensor("weights.bin", (1 << 35,))), "which has 28 bytes")


@pytest.mark.parametrize("key", ["__class__", "folder", "_files", "tofile", "ma\nlice"])
def test_keys_are_a_closed_list(folder: Path, key: str) -> None:
    """CVE-2026-34445: keys became attributes of an object."""
    refused(write_model(folder, external_tensor("weights.bin", **{key: "x"})), "unknown external data key")


def test_entries_that_contradict_one_another(folder: Path) -> None:
    twice = external_tensor("weights.bin", offset=4)
    twice.external_data.add(key="location", value="../secret.bin")
    refused(write_model(folder, twice), "given twice")
    nowhere = external_tensor("weights.bin")
    del nowhere.external_data[0]
    refused(write_model(folder, nowhere), "without a location")
    both = external_tensor("weights.bin", offset=4)
    both.raw_data = WEIGHTS.tobytes()
    with pytest.raises(errors.InvalidTensor, match="more than one field"):
        load_model(write_model(folder, both))
    refused(write_model(folder, external_tensor("weights.bin", (1,), TensorProto.STRING)), "strings cannot")


def model_with_tensor_in(place: str, tensor: onnx.TensorProto) -> onnx.ModelProto:
    """A model that has the tensor in an unusual place."""
    constant = NODE("Constant", [], ["y"], value=tensor)
    if place == "attribute":
        return make_model([constant])
    if place == "function":
        function = helper.make_function("my", "F", [], ["y"], [constant], [helper.make_opsetid("", 17)])
        return make_model([NODE("F", [], ["y"], domain="my")], functions=[function], imports={"my": 1})
    if place == "sparse":
        model = make_model([], outputs=["w"])
        sparse = onnx.SparseTensorProto(values=tensor, dims=[6])
        sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(6)))
        model.graph.sparse_initializer.append(sparse)
        return model
    branch = helper.make_graph([], "branch", [], [float_info("w", (6,))], [tensor])
    node = NODE("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return make_model([node], inputs=[helper.make_tensor_value_info("x", TensorProto.BOOL, ())])


@pytest.mark.parametrize("place", ["attribute", "function", "sparse", "subgraph"])
def test_tensors_in_every_place_go_through_the_same_checks(folder: Path, place: str) -> None:
    path = folder / "model.onnx"
    path.write_bytes(model_with_tensor_in(place, external_tensor("weights.bin", offset=4)).SerializeToString())
    graph = load_model(path).graph
    if place == "sparse":
        found = graph.initializers["w"]
    else:
        value = next(iter(graph.nodes[0].attributes.values()))
        found = value.initializers["w"] if place == "subgraph" else value  # type: ignore[union-attr]
    assert not isinstance(found, SparseTensor) and np.array_equal(found, WEIGHTS)  # type: ignore[arg-type]
    path.write_bytes(model_with_tensor_in(place, external_tensor("../secret.bin")).SerializeToString())
    with pytest.raises(errors.ExternalDataError, match="not a plain path"):
        load_model(path)


def test_systems_that_cannot_open_relative_to_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data.os, "supports_dir_fd", set())
    assert np.array_equal(
        weights_of(load_model(write_model(folder, external_tensor("weights.bin", offset=4)))), WEIGHTS
    )
    (folder / "up").symlink_to(folder.parent, target_is_directory=True)
    refused(write_model(folder, external_tensor("up/secret.bin")), "a link")
    (folder / "link.bin").symlink_to("weights.bin")
    refused(write_model(folder, external_tensor("link.bin")), "a link")
    refused(write_model(folder, external_tensor("missing.bin")), "does not exist")
