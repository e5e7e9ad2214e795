"""What is told of each client in each situation: `python -m benchmarks.clients`.

A client is a file in this folder that says how to make, use and close it. Each is used in two runs,
on two loops that are alive, and by two tasks of one loop, bare and under loopsentry, and then once
more with the first cure that was offered, applied to the letter.
"""
