"""Choosing reward models inside other trainers."""
