"""From a graph of nodes to an ordered list of kernels, and from those to a program.

`inlining` decides which tensors never exist, `fusion` which computations share a kernel, `program` gives every
kernel its arguments and every tensor its memory.
"""
