"""Landing on a budget: amounts, prices, the controller of the strength, the final trim."""
