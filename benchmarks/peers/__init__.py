"""Steps of other programs, which benchmarks time beside the library's, in an interpreter that has what they import."""
