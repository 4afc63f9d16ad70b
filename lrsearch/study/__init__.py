"""Decide: range tests and studies as a person calls them."""
