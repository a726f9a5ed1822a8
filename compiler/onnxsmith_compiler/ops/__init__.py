"""The operators of the tensor IR, a family a module: attributes, type inference, lowering, folding.

There are far fewer of them than ONNX has: the importer spells most ONNX operators as several of these,
and fusion makes one kernel of them again.
"""
