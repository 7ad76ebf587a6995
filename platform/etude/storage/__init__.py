"""Where what is made lies: whole files in a folder or on S3, one writer at a time, a cache before them."""
