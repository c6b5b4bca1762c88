"""The processes of a run, the weights that they shard, and smaller batches when memory runs out."""
