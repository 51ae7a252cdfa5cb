"""Pictures that the server draws for the pages."""
