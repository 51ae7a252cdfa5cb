"""Pruning: fewer channels (``structured``) or more zeros (``masks``)."""
