"""What only shows when a case is walked through its process, and what open cases could not follow."""
