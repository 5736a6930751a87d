"""Read, fix and cut ONNX graphs of models that were made elsewhere."""
