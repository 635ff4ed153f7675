"""Measurements of finished runs and of models: learned offsets, parameters and FLOPs. Nothing is trained."""
