"""Well-known network architectures, small and written with onnx.helper alone, to compare engines on."""
