//! A faithful Composio for development and tests.
