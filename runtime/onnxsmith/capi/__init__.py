"""onnxruntime's module layout, for code that imports names from below `onnxruntime.capi`."""
