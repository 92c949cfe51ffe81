"""From stored images to batches: order, crops on the host, and the threads that decode."""
