"""Hand-written kernels, for what is no loop nest: sorting, selection, scattering, recurrent steps.

Each is a plain function in the kernels' language with the kernel ABI's arguments; `table.LIBRARY` lists them.
"""
