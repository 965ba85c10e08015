"""Training loop, losses, schedules, resume files and cross-validation."""
