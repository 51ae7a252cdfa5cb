"""How people label: whose turn an image is, what two of them agree on, doubts, and files of labels."""
