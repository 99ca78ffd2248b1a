"""Recording, features, adaptation and rebuild: the only place where storage, bundle and core meet.

Feature differences ``z`` are computed once, when feedback arrives, and stored with it. Adaptation then needs neither
text nor encoder: a user with N comparisons is an N×K matrix.
"""
