"""A local web page to look at the rows of a run and to say which of their labels is right."""
