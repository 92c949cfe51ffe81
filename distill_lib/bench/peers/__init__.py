"""What is timed in an interpreter of its own, which has what it imports; `serve.py` runs one of the others as a job."""
