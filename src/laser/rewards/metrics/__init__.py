"""Metrics of a response's text as reward models."""
