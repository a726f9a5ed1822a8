"""Compiled models as Python packages, imported by a Python that has numpy and nothing else."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import random as random_numbers
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import model, tensor

import onnxsmith
from onnxsmith import artifact, manifest, packaging
from onnxsmith.cpu import CodeTarget, generic_target, host
from onnxsmith.errors import Fail, InvalidArgument, ModelRequiresCompilation, NoSuchFile
from onnxsmith.manifest import CodeFile

RUNTIME = Path(onnxsmith.__file__).parent
CODE = "libmy_model.so"
ALIEN = CodeTarget("linux", host().machine, ("avx", "feature_of_the_future"), "x86-64-v9")

# y = relu(x @ w) of [N, 16] by [16, 8]: a weight, and a symbol.
WEIGHT = np.linspace(-1, 1, 128, dtype=np.float32).reshape(16, 8)

RUN = """
import numpy as np
x = np.linspace(-2, 3, 16 * N, dtype=np.float32).reshape(N, 16)
(y,) = my_model.run(None, {"x": x})
w = np.linspace(-1, 1, 128, dtype=np.float32).reshape(16, 8)
np.testing.assert_allclose(y, np.maximum(x @ w, 0), 1e-5, 1e-5)
"""


def dense_model() -> bytes:
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [tensor("x", ["N", 16])],
        [tensor("y", ["N", 8])],
        [helper.make_tensor("w", TensorProto.FLOAT, WEIGHT.shape, WEIGHT.tobytes(), raw=True)],
        model_version=3,
        producer_name="a test",
    )


def compiled(model: bytes, output: Path, **options) -> Path:
    """A package for this machine alone, which takes the least time to make."""
    return onnxsmith.compile(model, output, target="native", **options)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """my_model/ for this machine alone, not to be written to."""
    return compiled(dense_model(), tmp_path_factory.mktemp("package") / "my_model")


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    """my_model/, to be damaged."""
    return Path(shutil.copytree(package, tmp_path / "my_model"))


@pytest.fixture(scope="session")
def numpy_folder(tmp_path_factory) -> Path:
    """A folder in which numpy is, and no other package."""
    folder = tmp_path_factory.mktemp("numpy")
    installed = Path(np.__file__).parent
    for found in (installed, installed.with_name("numpy.libs")):
        if found.exists():
            (folder / found.name).symlink_to(found)
    return folder


@pytest.fixture
def python(numpy_folder: Path):
    """Runs a program in a Python that finds packages in the given folders, and numpy, alone."""

    def run(text: str, *folders: Path, fails: bool = False) -> str:
        head = f"import sys\nsys.path[:0] = {[*map(str, folders), str(numpy_folder)]!r}\n"
        done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", head + text], capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


class TestImport:
    def test_it_runs_with_numpy_alone(self, package, python):
        python(
            "import my_model\n"
            "for N in (1, 7, 0, 64):" + RUN.replace("\n", "\n    ") + "\n"
            "for name in ('onnxsmith', 'onnxsmith_compiler', 'numba', 'llvmlite', 'onnx', 'ml_dtypes', 'filelock'):\n"
            "    try:\n        __import__(name)\n"
            "    except ModuleNotFoundError:\n        continue\n"
            "    raise SystemExit(f'{name} can be imported')\n",
            package.parent,
        )

    def test_importing_opens_nothing_and_starts_no_thread(self, package, python):
        python(
            "import my_model\n"
            "assert 'numpy' not in sys.modules and 'my_model._runtime.session' not in sys.modules\n"
            "assert set(my_model.__all__) <= set(dir(my_model))\n"
            "import os, numpy, threading\n"
            "before = os.listdir('/proc/self/task')  # numpy's own among them\n"
            "my_model.session\n"
            "assert threading.active_count() == 1 and os.listdir('/proc/self/task') == before\n",
            package.parent,
        )

    @pytest.mark.parametrize("form", ["my_model", "my_model.zip"])
    def test_opening_and_running_import_little(self, form, package, tmp_path, python):
        path = package.parent if form == "my_model" else onnxsmith.compile(dense_model(), tmp_path / form)
        printed = python(
            "import numpy\nbefore = set(sys.modules)\nimport my_model"
            + "\nimport numpy as np\nmy_model.run(None, {'x': np.ones((1, 16), np.float32)})\n"
            + "print(*(name for name in set(sys.modules) - before if not name.startswith('my_model')))",
            path,
        )
        slow = {"dataclasses", "hashlib", "threading", "zipfile", "inspect", "pathlib", "logging", "tempfile", "shutil"}
        assert not slow & set(printed.split())

    def test_what_it_offers(self, package, python):
        printed = python(
            "import inspect, json, my_model\n"
            "run = inspect.signature(my_model.run)\n"
            "assert list(run.parameters) == ['output_names', 'input_feed', 'run_options']\n"
            "assert run == inspect.signature(type(my_model.session).run.__get__(my_model.session))\n"
            "assert my_model.session is my_model.session and my_model.run.__self__ is my_model.session\n"
            "options = my_model.SessionOptions()\n"
            "options.intra_op_num_threads = 1\n"
            "assert my_model.load(options).get_session_options() is options\n"
            "assert not hasattr(my_model, 'other')\n"
            "print(json.dumps([my_model.metadata.producer_name, my_model.metadata.version,\n"
            "    my_model.session.get_inputs()[0].shape]))\n",
            package.parent,
        )
        assert json.loads(printed) == ["a test", 3, ["N", 16]]

    def test_two_packages_and_onnxsmith_in_one_process(self, package, tmp_path, python):
        other = compiled(
            model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", ["N"])], [tensor("y", ["N"])]),
            tmp_path / "negative",
        )
        python(
            "import my_model, negative, numpy\n"
            "assert type(my_model.session) is not type(negative.session)\n"
            "assert negative.run(None, {'x': numpy.ones(3, 'float32')})[0].tolist() == [-1, -1, -1]\n"
            "N = 3" + RUN + "import onnxsmith\n"
            f"session = onnxsmith.load({str(other)!r})\n"
            "assert isinstance(session, onnxsmith.InferenceSession)\n"
            "assert not isinstance(my_model.session, onnxsmith.InferenceSession)\n"
            "assert session.run(None, {'x': numpy.ones(2, 'float32')})[0].tolist() == [-1, -1]\n",
            package.parent,
            tmp_path,
            RUNTIME.parent,
        )

    def test_pickle(self, package, python, tmp_path):
        python(
            "import my_model, pickle\n"
            f"text = pickle.dumps([my_model.session, my_model.run])\n"
            f"open({str(tmp_path / 'pickle')!r}, 'wb').write(text)\n"
            "assert len(text) < 1000\n",
            package.parent,
        )
        moved = Path(shutil.copytree(package, tmp_path / "elsewhere" / "my_model"))
        python(
            "import pickle, types\n"
            f"session, run = pickle.load(open({str(tmp_path / 'pickle')!r}, 'rb'))\n"
            "my_model = types.SimpleNamespace(run=run)\nN = 2" + RUN + "my_model = session\nN = 5" + RUN,
            moved.parent,
        )

    def test_fork_after_use(self, package, python):
        python(
            "import my_model, os, warnings\nN = 600" + RUN + "warnings.simplefilter('ignore')\n"
            "child = os.fork()\nN = 601" + RUN + "if not child:\n    os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n",
            package.parent,
        )

    def test_symbols_that_disagree_say_how_to_compile(self, add_model, tmp_path, python):
        made = compiled(add_model, tmp_path / "add")
        x, y = np.ones((2, 3), np.float32), np.ones((1, 3), np.float32)
        with pytest.raises(InvalidArgument, match=r"distinct_symbols=\['N'\]"):
            onnxsmith.load(made).run(None, {"x": x, "y": y})
        made = compiled(add_model, tmp_path / "add", distinct_symbols=["N"])
        np.testing.assert_array_equal(onnxsmith.load(made).run(None, {"x": x, "y": y})[0], x + y)


class TestForms:
    def test_zip(self, tmp_path, python):
        made = compiled(dense_model(), tmp_path / "my_model.zip")
        assert made == tmp_path / "my_model.zip"
        python("import my_model\nN = 3" + RUN + "assert '.zip' in my_model.__file__\n", made)
        with zipfile.ZipFile(made) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
            assert archive.testzip() is None
        session = onnxsmith.load(made, verify=True)
        x = np.ones((2, 16), np.float32)
        np.testing.assert_allclose(session.run(None, {"x": x})[0], np.maximum(x @ WEIGHT, 0), 1e-5, 1e-5)

    def test_a_zip_file_has_byte_code_and_other_pythons_take_the_source(self, tmp_path, python):
        made = onnxsmith.compile(dense_model(), tmp_path / "my_model.zip")
        path_of = "\nprint(sys.modules['my_model._runtime.executor'].__file__)"
        assert python("import my_model\nN = 3" + RUN + path_of, made).endswith("executor.pyc\n")
        foreign = tmp_path / "foreign" / "my_model.zip"
        foreign.parent.mkdir()
        with zipfile.ZipFile(made) as archive, zipfile.ZipFile(foreign, "w") as other:
            for name in archive.namelist():
                content = archive.read(name)
                other.writestr(name, b"\0" + content[1:] if name.endswith(".pyc") else content)
        path_of = "print(sys.modules['my_model._runtime.embedded'].__file__)"
        assert python(f"import my_model\nmy_model.SessionOptions\n{path_of}", foreign).endswith("embedded.py\n")

    def test_weights_in_a_zip_file_are_mapped(self, tmp_path):
        made = compiled(dense_model(), tmp_path / "my_model.zip")
        session = onnxsmith.load(made)
        assert str(made) in Path("/proc/self/maps").read_text()
        assert session.run(None, {"x": np.ones((1, 16), np.float32)})

    def test_wheel(self, tmp_path, python):
        wheel = compiled(dense_model(), tmp_path / "my_model", wheel=True)
        assert wheel.name == f"my_model-3-py3-none-linux_{os.uname().machine}.whl"
        target = tmp_path / "site"
        command = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(target), str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *command], check=True)
        python("import my_model\nN = 3" + RUN, target)
        onnxsmith.load(target / "my_model", verify=True)
        onnxsmith.load(wheel, verify=True)
        (info,) = target.glob("*.dist-info")
        assert "Requires-Dist: numpy>=2.0" in (info / "METADATA").read_text().splitlines()
        assert "ml_dtypes" not in (info / "METADATA").read_text()

    def test_a_wheel_declares_the_types_of_ml_dtypes(self, tmp_path):
        half = tensor("x", ["N"], TensorProto.BFLOAT16), tensor("y", ["N"], TensorProto.BFLOAT16)
        proto = model([helper.make_node("Relu", ["x"], ["y"])], [half[0]], [half[1]])
        wheel = compiled(proto, tmp_path / "half", wheel=True, version="2.1.post3")
        with zipfile.ZipFile(wheel) as archive:
            assert "Requires-Dist: ml_dtypes" in archive.read("half-2.1.post3.dist-info/METADATA").decode()

    def test_the_same_bytes_each_time(self, tmp_path, monkeypatch):
        forms = {"my_model": {}, "my_model.zip": {}, "wheel/my_model": {"wheel": True}}
        made = []
        for number in range(2):
            monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(tmp_path / f"cache{number}"))
            paths = [compiled(dense_model(), tmp_path / f"{number}" / name, **f) for name, f in forms.items()]
            files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.*")))]
            made.append({str(file.relative_to(tmp_path / f"{number}")): file.read_bytes() for file in files})
        assert made[0] == made[1] and len(made[0]) > 30

    def test_the_python_files_are_the_same_for_every_model(self, package, tmp_path, relu_model):
        other = compiled(relu_model, tmp_path / "other_model")
        names = sorted(path.relative_to(package) for path in package.rglob("*.py"))
        assert names == sorted(path.relative_to(other) for path in other.rglob("*.py"))
        assert all((package / name).read_bytes() == (other / name).read_bytes() for name in names)

    def test_without_an_output_it_is_a_session(self, relu_model):
        session = onnxsmith.compile(relu_model, optimization_level=1, dimensions={"N": 2}, winograd=False)
        assert session.get_inputs()[0].shape == [2]
        assert isinstance(pickle.loads(pickle.dumps(session)), onnxsmith.InferenceSession)

    def test_a_package_is_replaced_and_nothing_else_is(self, copy, relu_model, tmp_path):
        compiled(relu_model, copy)
        assert onnxsmith.load(copy).get_inputs()[0].shape == ["N"]
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        with pytest.raises(ValueError, match="not overwritten"):
            compiled(relu_model, tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
        assert not list(tmp_path.glob(".onnxsmith*"))

    @pytest.mark.parametrize("name", ["my-model", "class", "3d", "my_model.whl", "modèle"])
    def test_names_that_cannot_be_imported(self, name, relu_model, tmp_path):
        with pytest.raises(ValueError, match="cannot be imported"):
            compiled(relu_model, tmp_path / name)

    def test_what_is_refused(self, relu_model, package, tmp_path):
        with pytest.raises(InvalidArgument, match="no target 'tpu': it is one of native, x86_64-linux"):
            onnxsmith.compile(relu_model, target="tpu")
        with pytest.raises(InvalidArgument, match="goes with the target 'native', not 'x86_64-linux'"):
            onnxsmith.compile(relu_model, tmp_path / "x", target="x86_64-linux", tune=True)
        with pytest.raises(InvalidArgument, match="no option 'speed'"):
            compiled(relu_model, tmp_path / "x", speed=11)
        with pytest.raises(ValueError, match="no version"):
            compiled(relu_model, tmp_path / "x", wheel=True, version="new")
        options = onnxsmith.SessionOptions()
        options.add_free_dimension_override_by_name("N", 3)
        with pytest.raises(InvalidArgument, match=r"give them to onnxsmith\.compile"):
            onnxsmith.load(package, options)


class TestTrust:
    """A package is checked before any of its code is loaded."""

    def test_the_pinned_digest(self, package, copy):
        pin = hashlib.sha256((package / "manifest.json").read_bytes()).hexdigest()
        assert pin == artifact.digest(package)
        assert onnxsmith.load(package, sha256=pin).get_outputs()[0].name == "y"
        with pytest.raises(Fail, match=f"not the one that is trusted: its SHA-256 is {pin}"):
            onnxsmith.load(package, sha256=pin[::-1])
        weights = copy / "weights.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(Fail, match=r"weights\.safetensors: damaged"):
            onnxsmith.load(copy, sha256=pin)

    def test_loading_runs_nothing_of_the_package(self, copy):
        (copy / "__init__.py").write_text("raise SystemExit(1)")
        (copy / "_runtime" / "session.py").write_text("raise SystemExit(1)")
        assert onnxsmith.load(copy)
        with pytest.raises(Fail, match=r"__init__\.py: damaged"):
            onnxsmith.load(copy, verify=True)

    @pytest.mark.parametrize("name", ["manifest.json", "program.json", CODE, "weights.safetensors"])
    def test_a_missing_file(self, name, copy, python):
        (copy / name).unlink()
        message = rf"{name}: cannot be .*onnxsmith compile MODEL\.onnx -o .*my_model"
        with pytest.raises(Fail, match=message):
            onnxsmith.load(copy)
        assert f"{name}: cannot be" in python("import my_model\nmy_model.session", copy.parent, fails=True)

    def test_no_package(self, tmp_path):
        with pytest.raises(NoSuchFile, match="nowhere"):
            onnxsmith.load(tmp_path / "nowhere")
        (tmp_path / "file.zip").write_bytes(b"no zip file")
        with pytest.raises(Fail, match="is no package"):
            onnxsmith.load(tmp_path / "file.zip")
        with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
            pass
        with pytest.raises(Fail, match=r"0 files manifest\.json"):
            onnxsmith.load(tmp_path / "empty.zip")

    def test_a_newer_schema(self, copy, python):
        path = copy / "manifest.json"
        schema = artifact.SCHEMA_VERSION
        body = path.read_bytes().replace(b'"schema": %d' % schema, b'"schema": %d' % (schema + 1))
        path.write_bytes(manifest.sealed(body[: body.index(b',\n "sha256": "', -100)] + b"\n}\n"))
        with pytest.raises(ModelRequiresCompilation, match=f"schema {schema + 1}, and this runtime reads {schema}"):
            onnxsmith.load(copy)
        error = python("import my_model\nmy_model.session", copy.parent, fails=True)
        assert f"this runtime reads {schema}. Compile the model again" in error

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            (ALIEN, "(x86-64-v9), and this CPU lacks feature_of_the_future, which x86-64-v9 needs"),
            (CodeTarget("linux", "s390x", level="z14"), "the code is for linux_s390x (z14), and this is"),
            (CodeTarget("plan9", host().machine), "the code is for plan9"),
        ],
    )
    def test_another_machine(self, target, message, copy, python):
        with_code(copy, CodeFile(CODE, target))
        with pytest.raises(ModelRequiresCompilation, match=re.escape(message)) as refusal:
            onnxsmith.load(copy)
        command = f"Compile the model again: onnxsmith compile MODEL.onnx -o {copy} --target {generic_target()}"
        assert str(refusal.value).endswith(command)
        error = python("import my_model\nmy_model.session", copy.parent, fails=True)
        assert message in error and command in error

    def test_the_first_code_that_fits_is_taken(self, copy):
        (copy / "alien.so").write_bytes(b"no library")
        entry = manifest.FileEntry(10, hashlib.sha256(b"no library").hexdigest())
        with_code(copy, CodeFile("alien.so", ALIEN), CodeFile(CODE, host()), entry=entry)
        assert onnxsmith.load(copy, verify=True).run(None, {"x": np.ones((1, 16), np.float32)})

    def test_changed_bytes(self, copy):
        check_changes(copy, 100)

    @pytest.mark.slow
    def test_many_changed_bytes(self, copy):
        check_changes(copy, 3334)

    def test_zip_files_that_are_cut_off_or_changed(self, tmp_path):
        made = onnxsmith.compile(dense_model(), tmp_path / "my_model.zip")
        whole = made.read_bytes()
        generator = random_numbers.Random(0)
        lengths = [0, 1, 21, len(whole) - 1, *(generator.randrange(len(whole)) for _ in range(40))]
        for content in (whole[:length] for length in lengths):
            made.write_bytes(content)
            with pytest.raises(Fail, match="is no package of a compiled model"):
                onnxsmith.load(made)
        for position in (generator.randrange(len(whole)) for _ in range(60)):
            changed = bytearray(whole)
            changed[position] ^= generator.randrange(1, 256)
            made.write_bytes(changed)
            try:
                session = onnxsmith.load(made, verify=True)
            except Fail:
                continue
            # Padding between members, and what the directory says that nobody reads, may change.
            np.testing.assert_array_equal(session.run(None, {"x": np.zeros((1, 16), np.float32)})[0], 0)

    def test_weights_are_checked_by_header_and_size(self, copy):
        path = copy / "weights.safetensors"
        content = path.read_bytes()
        for start in range(8, 60, 7):
            path.write_bytes(content[:start] + b"#" + content[start + 1 :])
            with pytest.raises(Fail, match=r"weights\.safetensors: damaged, its header"):
                onnxsmith.load(copy)
        path.write_bytes(content + b"\0")
        with pytest.raises(Fail, match="not of the size"):
            onnxsmith.load(copy)


def with_code(folder: Path, *code: CodeFile, entry: manifest.FileEntry | None = None) -> None:
    """Rewrite a package's manifest to list `code`."""
    before = manifest.decode((folder / "manifest.json").read_bytes())
    files = before.files if entry is None else {**before.files, code[0].file: entry}
    (folder / "manifest.json").write_bytes(manifest.encode(manifest.Manifest(code, files)))


def check_changes(folder: Path, count: int) -> None:
    """Change one byte at a time in each file that every opening verifies."""
    generator = random_numbers.Random(count)
    for name in (CODE, "program.json", "manifest.json"):
        path = folder / name
        content = path.read_bytes()
        for _ in range(count):
            position = generator.randrange(len(content))
            changed = bytearray(content)
            changed[position] ^= generator.randrange(1, 256)
            path.write_bytes(changed)
            with pytest.raises(Fail, match=rf"{name}: (damaged|not the manifest).*Compile the model again"):
                onnxsmith.load(folder)
        path.write_bytes(content)
    onnxsmith.load(folder, verify=True)


class TestRuntimeModules:
    """The modules that are copied into packages."""

    def test_they_import_nothing_that_is_not_copied(self):
        copied = set(packaging.RUNTIME_MODULES)
        for module in packaging.RUNTIME_MODULES:
            tree = ast.parse((RUNTIME / f"{module}.py").read_text())
            outside = {name for name in imports(tree) if name.startswith("onnxsmith")}
            names = {name.removeprefix("onnxsmith.").split(".")[0] for name in outside}
            # A session of an ONNX model opens it with the compiler's client; a package has no such session.
            assert names - copied <= ({"opening"} if module == "session" else set()), module

    def test_they_need_numpy_and_the_standard_library(self):
        # platformdirs finds the cache outside Linux, which a package does not use.
        allowed = sys.stdlib_module_names | {"numpy", "onnxsmith", "ml_dtypes", "platformdirs", "_sha2"}
        for module in packaging.RUNTIME_MODULES:
            tree = ast.parse((RUNTIME / f"{module}.py").read_text())
            assert {name.split(".")[0] for name in imports(tree)} <= allowed, module

    def test_all_copied_imports_are_relative(self):
        for name, text in packaging.package_sources().items():
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    assert not (node.module or "").startswith("onnxsmith"), name

    def test_an_import_that_cannot_be_made_relative_is_refused(self):
        with pytest.raises(RuntimeError, match=r"onnxsmith\.new .* import onnxsmith\.cache"):
            packaging.relative_imports("import os\n    import onnxsmith.cache\n", "new")


def imports(tree: ast.Module) -> set[str]:
    """What a module imports, at once or in its functions, but for annotations."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module == "onnxsmith":
            found.update(f"onnxsmith.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found
