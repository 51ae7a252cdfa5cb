"""The documentation as a site: pages for mkdocs that are generated from the code."""
