"""The processes of a run, weights that they hold between them, and what to do when memory runs out."""
