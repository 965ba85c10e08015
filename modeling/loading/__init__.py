"""Loading of images into a network: source, order, augmentation and normalisation."""
