"""What each command does, one module a command; `cli/` holds their options and printing."""
