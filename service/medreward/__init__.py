"""MedReward: six scores for (image, question, response), over REST and gRPC."""

from medreward.quiet import switch_statistics_off

__version__ = "0.2.0"

switch_statistics_off()  # before any other import of ours brings a library along
