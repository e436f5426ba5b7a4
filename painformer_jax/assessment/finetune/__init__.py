"""Fine-tunes the backbone together with the Mixers of a job, and tests them.

<folder>/seed-<n>/checkpoints/   while it trains
<folder>/seed-<n>/embeddings/    of the test samples, by the fine-tuned backbone
<folder>/seed-<n>/weights/       the fine-tuned backbone, and whom it was trained on
<folder>/seed-<n>/logits.npz     the predictions of the test samples; written last
"""
