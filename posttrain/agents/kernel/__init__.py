"""What the agents share: environments, replay, returns, transforms, networks, checkpoints. Functions and small classes, no flags."""
