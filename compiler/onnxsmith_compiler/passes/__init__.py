"""Rewrites of the tensor graph, one a file: each takes a graph and returns a graph that computes the same.

`pipeline.passes` lists them in the order in which they run; the graph is verified after each.
"""
