"""recd_dist: train recommendation models on each distinct row once. Importing it loads nothing heavy."""

__version__ = "0.1.0"
