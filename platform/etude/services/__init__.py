"""The two servers of a single machine: a Ray head and an MLflow server, both on 127.0.0.1."""
