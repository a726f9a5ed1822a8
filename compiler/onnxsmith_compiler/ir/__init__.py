"""The two intermediate representations: the tensor graph and the loop nests its nodes lower to.

Nothing here knows ONNX or numba. Sizes and indices are integer polynomials (`dim`), a graph holds
typed values and nodes (`graph`), and a node's lowering is an expression over loop indices (`loop`).
"""
