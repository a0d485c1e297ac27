"""What `scripts/check_device.sh` does: check an accelerator, and say what came out."""
