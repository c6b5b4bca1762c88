"""Prompts: files, hub data sets, the embedded tasks, splits and batches."""
