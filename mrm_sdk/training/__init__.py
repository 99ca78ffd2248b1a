"""Users' comparisons -> a bundle: data sets, episodes, the outer loop, export. Needs the extra ``[train]``."""
