"""Systems that MiM-DiT is compared with: same backbone, same data, same training, same evaluation."""
