"""Which attention kernel PyTorch should use at nano's token counts: forward and backward to the
inputs, medians.

python benchmarks/attention.py
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION}


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kernel: SDPBackend) -> float:
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    with sdpa_kernel([kernel]):
        F.scaled_dot_product_attention(q, k, v).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    print(
        f"{torch.get_num_threads()} threads; ms forward + backward, median of 15, kernels"
        " alternating"
    )
    for dtype in (torch.float32, torch.bfloat16):
        for batch, tokens in ((16, 64), (8, 256), (2, 1024)):
            q = torch.randn(batch, 6, tokens + 4, 32, dtype=dtype, requires_grad=True)
            k, v = (
                torch.randn(batch, 6, 2 * tokens + 4, 32, dtype=dtype, requires_grad=True)
                for _ in range(2)
            )
            times = {name: [] for name in KERNELS}
            for _ in range(18):
                for name, kernel in KERNELS.items():
                    times[name].append(run(q, k, v, kernel))
            medians = {name: 1000 * statistics.median(values[3:]) for name, values in times.items()}
            shown = "  ".join(f"{name} {ms:8.2f}" for name, ms in medians.items())
            print(
                f"{dtype!s:15} batch {batch:2} tokens {tokens:5}: {shown}  flash/math"
                f" {medians['flash'] / medians['math']:.2f}"
            )


if __name__ == "__main__":
    main()
