"""Sessions of compiled models that are on disk: opened as they are, without a compiler."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from onnxsmith.errors import Fail, InvalidArgument, ModelRequiresCompilation, NoSuchFile, error
from onnxsmith.forks import UNDIVIDED
from onnxsmith.options import SessionOptions, compile_options
from onnxsmith.record import Record

if TYPE_CHECKING:
    from onnxsmith.executor import Executor
    from onnxsmith.storage import Storage

_MANIFEST = "manifest.json"


class PackageSource(Record):
    """A compiled model: the absolute path of its folder, zip file or wheel.

    Without a path it is the one that this runtime is a part of, wherever that is when it is opened.
    `sha256` is the digest that its manifest must have; then, or where `verify`, every file is read in full.
    """

    path: str | None
    sha256: str | None = None
    verify: bool = False

    def open(self, options: SessionOptions) -> Executor:
        """An executor of the program.

        NoSuchFile where there is nothing; ModelRequiresCompilation where it is for another machine or another
        release; Fail where it is damaged or not the trusted one; InvalidArgument for options of compilation.
        """
        with UNDIVIDED:
            from onnxsmith import artifact
            from onnxsmith.executor import Executor
            from onnxsmith.loader import Library, LibraryError
            from onnxsmith.manifest import OtherMachineError, UnfitError
            from onnxsmith.threads import session_threads

        if options._initializers or compile_options(options) != compile_options(None):
            raise error(
                InvalidArgument,
                "The session options change what is compiled (optimisation level, free dimensions, initializers, "
                "onnxsmith.compile.*), and this model is compiled: give them to onnxsmith.compile.",
            )
        storage = self._storage()
        try:
            package = artifact.read(storage, verify=self.verify or self.sha256 is not None, sha256=self.sha256)
            library = Library(package.code)
        except OtherMachineError as problem:
            raise error(ModelRequiresCompilation, f"{problem}. {_remedy(storage, _target(storage))}") from None
        except UnfitError as problem:
            raise error(ModelRequiresCompilation, f"{problem}. {_remedy(storage)}") from None
        except (artifact.ArtifactError, LibraryError) as problem:
            raise error(Fail, f"{problem}. {_remedy(storage)}") from None
        return Executor(package.program, library, package.weights, session_threads(options.intra_op_num_threads))

    def _storage(self) -> Storage:
        from onnxsmith.storage import Folder, ZipFolder

        if self.path is None:
            return _around(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        if os.path.isdir(self.path):
            return Folder(self.path)
        if not os.path.exists(self.path):
            raise error(NoSuchFile, f"There is no compiled model at '{self.path}'.")
        return ZipFolder(self.path, _folder_in(self.path))


def _around(folder: str) -> Storage:
    """The files of an imported package, which may lie in a zip file."""
    from onnxsmith.storage import Folder, ZipFolder

    if os.path.isdir(folder):
        return Folder(folder)
    outer, inner = os.path.split(folder)
    while inner and outer != os.path.dirname(outer) and not os.path.exists(outer):
        outer, name = os.path.split(outer)
        inner = f"{name}/{inner}"
    return ZipFolder(outer, inner)


def _folder_in(path: str) -> str:
    """The folder of a zip file in which the compiled model is. Fail where there is not one."""
    from onnxsmith import zip_directory

    try:
        with open(path, "rb") as file:
            names = zip_directory.members(file)
    except (OSError, ValueError) as problem:
        raise error(Fail, f"'{path}' is no package of a compiled model: {problem}.") from None
    folders = [name.removesuffix(f"/{_MANIFEST}") for name in names if name.endswith(f"/{_MANIFEST}")]
    if len(folders) != 1:
        raise error(Fail, f"'{path}' is no package of a compiled model: it has {len(folders)} files {_MANIFEST}.")
    return folders[0]


def _remedy(storage: Storage, target: str | None = None) -> str:
    command = f"onnxsmith compile MODEL.onnx -o {storage.location}"
    return f"Compile the model again: {command}{'' if target is None else f' --target {target}'}"


def _target(storage: Storage) -> str:
    """What a model that this machine cannot run would have to be compiled for."""
    from onnxsmith import artifact
    from onnxsmith.cpu import generic_target, host

    here = host().platform
    levels = [code.target for code in artifact.read_manifest(storage).code if code.target.platform == here]
    # Where not even the least of several levels runs, only code for this very CPU may.
    return "native" if len(levels) > 1 else generic_target()
