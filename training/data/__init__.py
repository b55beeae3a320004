"""Images to train on: where they come from, how files are read, batches."""
