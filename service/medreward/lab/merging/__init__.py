"""Merges experts, models of one base that learnt a specialty each, into one model: on their weights' differences from
the base, tensor by tensor."""
