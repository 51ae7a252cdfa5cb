"""From rows to batches: samples, augmentation, mixing."""
