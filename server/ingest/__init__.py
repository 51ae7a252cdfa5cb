"""Decodes the devices' messages and stores them as rows and windows."""
