"""What the server knows for good: releases, blobs, events and what ran where and when."""
