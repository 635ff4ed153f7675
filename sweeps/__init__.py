"""What to run: sweep files, and the code that plans, launches and watches their runs."""
