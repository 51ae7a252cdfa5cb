"""The updater's persistent state: slots, records and their copies."""
