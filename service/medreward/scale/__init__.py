"""Runs the service and its batches on engines of machines that exist: Ray Serve and Ray Data."""
