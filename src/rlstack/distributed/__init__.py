"""Many processes that train one policy, each on environments of its own."""
