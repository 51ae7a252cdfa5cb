"""Measurements that a build host orders: verified, one at a time, in a child process; the model is never installed."""
