"""laser inside other trainers, and labeling on Ray; each module imports its framework when it is used."""
