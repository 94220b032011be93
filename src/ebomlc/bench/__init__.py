"""A grid of runs that can be broken off, its rows, and the tables and plots that are made of them."""
