"""Keeps records and events; knows no scheduling."""
