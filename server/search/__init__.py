"""The search over devices, releases, rollouts, verdicts, samples, jobs and users."""
