"""What came back: published numbers, collected runs, and the statistics over both. Never imports torch."""
