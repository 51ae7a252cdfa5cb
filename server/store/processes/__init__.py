"""What several processes on one PostgreSQL database need of it."""
