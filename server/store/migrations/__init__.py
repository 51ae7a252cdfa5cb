"""The database's revisions, one file each in ``versions``; ``server.store.revisions`` applies them with Alembic."""
