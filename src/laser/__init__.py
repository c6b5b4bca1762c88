"""laser: train language models with several reward models, learning which one to trust."""

__version__ = "0.1.0"
