"""The language model that is trained, and sampling from it."""
