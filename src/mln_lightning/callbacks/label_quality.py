"""Label quality, epoch by epoch."""
