"""The mathematics: pure torch, tensors in and tensors out, no I/O."""
