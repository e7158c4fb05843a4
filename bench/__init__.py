"""The figures: what a call costs, always against a floor measured in the same run. See docs/performance.md."""
