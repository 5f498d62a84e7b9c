"""Jobs, and the workers that do them: runs that wait for a worker, on this machine or on many."""
