"""Reward models and the pool that holds them."""
