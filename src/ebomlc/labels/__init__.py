"""From a trained method to the label table."""
