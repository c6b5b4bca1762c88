"""Families of reward models: how a checkpoint's weights become a score, one file each."""
