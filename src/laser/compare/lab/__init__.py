"""The laboratory: the paper in a box, with small real language models trained from scratch on the CPU."""
