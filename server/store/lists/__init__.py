"""Queries of lists, a page at a time: ``paging`` has the order and the cursor, the other files a list each.

``changed_rows`` reads of a whole table only what changed.
"""
