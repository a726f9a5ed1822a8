"""`python -m onnxsmith` is the command `onnxsmith`."""

from onnxsmith.cli import main

main()
