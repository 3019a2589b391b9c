"""Draws pictures by rule, whose findings are known exactly, and asks and answers questions about them."""
