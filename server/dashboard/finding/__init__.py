"""Where each thing has its page, and the search over all of them."""
