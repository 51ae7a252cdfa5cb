"""Tables of who labelled an image how, who is about to, and which images can't be labelled."""
