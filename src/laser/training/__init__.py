"""Algorithm 1: pairs, losses, learner, loop, checkpoints."""
