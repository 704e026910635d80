"""What a run needs on many devices, before there are any: memory, bytes on the link, time of a step."""
