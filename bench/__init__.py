"""Speed, memory and accuracy of onnxsmith beside onnxruntime and OpenVINO: `make bench`."""
