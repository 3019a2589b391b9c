"""From labelled answers to a screening policy, and what a policy does to labelled answers."""
