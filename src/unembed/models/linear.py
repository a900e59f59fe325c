"""Linear layers that are only read, on a CPU: where nearly all of the time goes that a T5 writes.

Notable:
- `Packed`: the weights are laid out once as oneDNN's kernels want them, instead of in each product. The numbers are the
  same up to rounding, and a text's step takes 1.3 to 1.9 times less (docs/lab.md).
- `Int8`: weights rounded to int8 with one scale for each output, inputs with one for each row, so that a row's result
  does not depend on the rows beside it. A quarter of the memory, and faster still; texts may change.

Neither is trained or saved: they are put in the place of torch's own once a checkpoint is loaded for inference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROWS = 16
"""Rows of a product for which oneDNN chooses the layout: a small batch, where it matters most."""
LEAST = 2**15
"""Numbers of a matrix below which the layout gains nothing."""


class Packed(nn.Module):
    """A linear layer of float32 or bfloat16 in oneDNN's layout: [..., in] → [..., out]."""

    weight = None  # T5 looks at the dtype of a weight, where it finds one

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.to(self.packed.dtype), self.packed, self.bias, "none", [], "")

    @staticmethod
    def suits(linear: nn.Linear) -> bool:
        """Whether this machine has kernels for it, and it is large enough."""
        if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512") or linear.weight.numel() < LEAST:
            return False
        if linear.weight.dtype == torch.bfloat16:
            return torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.backends.mkldnn.is_available() and linear.weight.dtype == torch.float32


class Int8(nn.Module):
    """A linear layer of int8 weights for float32 inputs and outputs: [..., in] → [..., out]."""

    weight = None
    rounded: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # O I
        scale = (weight.abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)  # O
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        self.register_buffer("rounded", rounded.t())  # I O, the layout in memory stays O I
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.size(-1))
        largest = rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        products = torch._int_mm((rows * (127 / largest)).round().to(torch.int8), self.rounded)
        out = (products.float().mul_(self.scale).mul_(largest / 127)).view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias


def for_inference(network: nn.Module, part: nn.Module, *, int8: bool = False) -> None:
    """Replace the linear layers of a part of a network by `Packed` ones where that helps, or all by `Int8`. The network
    is on a CPU and in evaluation mode; what is left of its parameters lets go of the file that they were mapped from.
    """
    for parent in list(part.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and (int8 or Packed.suits(child)):
                setattr(parent, name, Int8(child) if int8 else Packed(child))
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()
