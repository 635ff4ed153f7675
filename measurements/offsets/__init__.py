"""Where a trained model reads: its offsets on images of its own data set, their statistics, and samples of them."""
