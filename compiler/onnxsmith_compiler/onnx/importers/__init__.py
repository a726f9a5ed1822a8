"""How each ONNX operator is spelled in tensor-IR operators, a family a module.

An importer is a function of one `NodeImport`: it reads attributes and inputs, emits operators and returns the outputs.
`op_table` lists which one serves which operator from which opset version on.
"""
