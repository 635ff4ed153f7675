"""Where a trained model reads: its offsets on images of its data set, their statistics, and some sampled positions."""
