"""Permanent records: releases, blobs, events, and which release ran on which device when."""
