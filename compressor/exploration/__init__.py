"""Examines data before anything is trained on it: profile, suspects, expectations, ranges, and their report.

Decides what a person should look at; changes neither data nor recipe.
"""
