"""ONNX Runtime: sessions, memory binding, execution providers, and what the machine has."""
