"""A model of the hub or of a folder becomes an ONNX encoder: loading, export, quantisation; needs extras."""
