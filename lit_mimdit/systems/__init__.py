"""Systems that MiM-DiT is compared with, on the same data and metrics."""
