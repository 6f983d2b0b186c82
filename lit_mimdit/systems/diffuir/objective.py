"""DiffUIR's and FoundIR's training: the loss is ResidualDiffusion's, the rest stands here.

Adam with a constant learning rate, betas 0.9 and 0.99, no weight decay, gradients of norm 1 at
most. 300,000 optimizer steps of two batches each; weights are averaged every 10 steps.
"""

LEARNING_RATE = 8e-5
BETAS = (0.9, 0.99)
CLIP_NORM = 1.0
STEPS = 300_000
ACCUMULATE = 2  # batches for one optimizer step
PATCH = 256  # pixels a side
BATCH = {"haze": 4, "low light": 1, "rain": 2, "snow": 2, "blur": 1}  # images of one batch
EMA_BETA = 0.995
EMA_EVERY = 10  # steps
