"""What a test suite needs instead of servers."""
