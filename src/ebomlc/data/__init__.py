"""From whatever the user has to paired batches."""
