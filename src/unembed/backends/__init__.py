"""Networks in frameworks other than PyTorch; each backend is a package that imports without its framework."""
