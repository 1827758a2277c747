"""Copies of the merged model in other formats, each read back and compared, and the push to the hub."""
