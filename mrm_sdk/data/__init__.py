"""People's judgements as data sets: reading, checking, ratings to pairs, other programs' formats."""
