"""What an alarm rests on, kept as long as its verdict, and how it is derived again from that."""
