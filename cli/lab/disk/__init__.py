"""`fleet-disk`, a disk that loses its power, fails and is slow when it is told to: the program, and talk to it."""
