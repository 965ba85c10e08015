"""Training loop, losses, schedules, resuming and cross-validation."""
