"""The command ``mrm``: results on stdout, progress on stderr and only on a terminal.

Exit code 0: success; 1: the work failed; 2: the call was wrong; 130: interrupted.
"""
