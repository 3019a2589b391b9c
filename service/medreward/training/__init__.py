"""Reward models made here: data building, losses, the training loop, export. Imported only where something is trained."""
