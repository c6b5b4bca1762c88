"""Selecting reward models: selectors, context preparation, feedback."""
