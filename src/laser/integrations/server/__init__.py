"""The reward server behind ``laser serve-rewards``: an adaptive reward model over HTTP for any trainer."""
