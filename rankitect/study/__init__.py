"""Studies: trials and their store, resuming, the ledger of what was spent, run folders and what is written into them.

Here belongs whatever makes a search survive and be accounted for. How an architecture is proposed is a controller's
matter, how it is measured an evaluator's, where it is measured a runner's. The way in is `study.Study`.
"""
