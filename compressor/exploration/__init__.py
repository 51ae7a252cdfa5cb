"""What data is like before anything is trained on it: profile, suspects, expectations, ranges, and how they are shown.

Decides what is worth a person's look; changes no data and no recipe.
"""
