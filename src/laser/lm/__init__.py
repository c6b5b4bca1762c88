"""Causal-LM primitives shared by policy and rewards: loading, chat templates, log-probs."""
