"""Training: from a frozen run folder to a summary, for every task alike, on one device or several."""
