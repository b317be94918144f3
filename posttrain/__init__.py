"""Post-training for language models: SCoRe self-correction by RL, many-shot prompts, graders and honest evaluation."""
