"""The commands of the `onnxsmith` program, one a module; `onnxsmith.cli` puts them together."""
