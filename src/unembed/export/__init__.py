"""Models for other runtimes: ONNX (`onnx`), family by family (`parts` says how a family is added)."""
