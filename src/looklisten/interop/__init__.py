"""Other formats and interfaces: OpenL3, HEAR, ONNX, the Hugging Face Hub."""
