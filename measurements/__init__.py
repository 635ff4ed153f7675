"""What is asked of finished runs and of models: learned offsets, parameters and FLOPs. Trains nothing."""
