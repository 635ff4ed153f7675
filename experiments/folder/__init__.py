"""The run folder: its files, who holds it, its checkpoints, where its numbers come from, what it starts from."""
