"""FoundIR's training of the generalist: the loss is ResidualDiffusion's, the rest stands here.

Adam as in DiffUIR, but for the learning rate. The specialists' recipes are not published.
"""

LEARNING_RATE = 1e-4
BETAS = (0.9, 0.99)
CLIP_NORM = 1.0
BATCH = 80  # pairs of all GPUs together, drawn evenly from all pairs
ACCUMULATE = 2  # batches for one optimizer step
PATCH = 256  # pixels a side
SINGLE_STEPS = 500_000  # on pairs with one degradation
STEPS = 2_000_000  # together with those on all pairs, from the same optimizer state
EMA_BETA = 0.995
EMA_EVERY = 10  # steps
