"""Reward models made here: data building, losses, the training loop, export. Only `train` and `export` import it."""
