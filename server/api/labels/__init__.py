"""Routes about labels beside those of one sample: what to look at again, and files of labels."""
