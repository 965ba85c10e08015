"""What is measured of predictions, and what they are compared with."""
