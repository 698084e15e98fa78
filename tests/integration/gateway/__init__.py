"""The gateway under uvicorn, against a coordinator that tests script."""
