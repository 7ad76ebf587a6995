"""Arrays in, arrays out: decoding, segmentation, log-mel features and their augmentation."""
