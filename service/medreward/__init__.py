"""MedReward: six scores for (image, question, response), over REST and gRPC."""

__version__ = "0.1.0"
