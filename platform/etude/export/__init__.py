"""From a trained system to one checked ONNX file that says how it was made."""
