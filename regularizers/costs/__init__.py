"""What a width costs. Read `cost` first; every cost is a few lines over it."""
