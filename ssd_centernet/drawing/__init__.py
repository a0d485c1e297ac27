"""Draw boxes on images, charts, and the parts of report pages."""
