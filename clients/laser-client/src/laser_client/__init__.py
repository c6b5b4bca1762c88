"""Client of ``laser serve-rewards``, in the standard library alone."""

from laser_client.client import Client, RewardServerError, Scored

__all__ = ["Client", "RewardServerError", "Scored"]
