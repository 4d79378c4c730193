"""The HTTP front door: translates requests into calls and runs into responses; decides nothing."""
