"""What becomes of a result: the decision on a claim, the ledger of a run, what a terminal and the pages say."""
