"""What the updater keeps on disk: slots, records and their second copies."""
