"""Results: published numbers, collected runs, measured results, and the statistics over them. Never imports torch.

``collect`` reads run folders (through ``run_folders``) into the three ``tables``; ``archive`` writes these to the files
that are committed and reads them back; ``plans`` describes which runs a sweep has. ``papers`` and ``counts`` hold
numbers that no run measured.
"""
