"""What needs torch: data, models, the one training loop, and the exporter to bundles."""
