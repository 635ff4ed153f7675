"""The MLP of a block: two FCs with a GELU between them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from atm.recompute import recomputable


class Mlp(nn.Module):
    """``fc2(GELU(fc1(x)))`` (AAAI Eq. 6). The backward pass recomputes the GELU's output."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., C]. Returns the same shape."""
        if torch.jit.is_scripting():
            return self.fc2(functional.gelu(self.fc1(x)))
        else:
            hidden = self.fc1(x)
            return self.fc2(recomputable(functional.gelu(hidden), functional.gelu, hidden))
