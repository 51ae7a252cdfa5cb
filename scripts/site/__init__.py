"""The documentation as a site: what mkdocs is given beside the pages in ``docs``, made from the code."""
