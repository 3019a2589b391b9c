"""Pictures drawn by rule, whose findings are known exactly, with questions and graded answers about them."""
