"""What a person reads: tables and figures of a sweep beside the papers' numbers. Never imports torch."""
