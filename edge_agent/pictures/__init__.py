"""Pictures as arrays: their sizes and levels, before they become numbers for a model. numpy and PIL only."""
