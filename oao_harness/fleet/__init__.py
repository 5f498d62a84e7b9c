"""Jobs, and the workers that do them: agents by name, runs that wait for a worker, processes that can be killed."""
