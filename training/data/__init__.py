"""The images to train on: where they come from, how files are decoded, which are held out, and batches of them."""
