"""Tasks: what a model predicts, and how its predictions become evidence."""
