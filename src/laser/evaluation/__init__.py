"""Answers and accuracy."""
