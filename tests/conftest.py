"""Its place here puts ``tests/`` on the import path, so that rooms can import `support`."""
