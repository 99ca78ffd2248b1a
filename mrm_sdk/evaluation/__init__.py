"""What personalization is worth: before it, after it, and with another user's weights."""
