"""Measuring a model on Med-RewardBench, or on any set in its format."""
