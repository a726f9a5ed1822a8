"""From an ONNX model (path, bytes or ModelProto) to the tensor IR.

`loader.load_model` reads, checks and inlines it into the dataclasses of `model`, external data included;
`importer` turns those into the tensor IR, one table entry an operator version.
"""
